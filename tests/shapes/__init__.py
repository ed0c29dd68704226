"""A value is decoded as its annotation says, or all that is wrong with it is explained."""
