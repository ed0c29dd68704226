"""Requests are read as they were sent, responses sent as they were made, and all ends in order."""
