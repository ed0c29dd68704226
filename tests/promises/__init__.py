"""Promises to users hold against real processes, signals and sockets, and hostile peers."""
