"""What Trio leaves to its users: time to clean up, exits, contexts, scopes left open."""
