"""From a method and a path to the route that a template and a handler were registered for."""
