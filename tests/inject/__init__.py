"""A handler gets what its signature asks for, or the client hears of all that is wrong at once."""
