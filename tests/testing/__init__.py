"""The test client gives what a server's client would get, and leaves nothing behind."""
