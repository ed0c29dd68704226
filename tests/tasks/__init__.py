"""Each task ends in exactly one known state, is counted there once, and runs when it should."""
