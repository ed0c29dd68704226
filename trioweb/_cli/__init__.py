"""The command line: from arguments to a process that serves, and ends in order."""
