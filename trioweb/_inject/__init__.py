"""From a signature to a plan, compiled once; a plan is one call that makes a response."""
