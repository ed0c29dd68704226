"""What runs after the response: each task ends in exactly one known state."""
