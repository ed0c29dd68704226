"""A path leads to the one route that is meant for it, in time that doesn't grow with the routes."""
