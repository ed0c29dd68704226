"""One request being answered: what comes in, what goes out, and the forms of both."""
