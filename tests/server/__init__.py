"""What comes is read strictly, by both parsers alike, and answered within the server's limits."""
