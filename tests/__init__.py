"""The tests: a folder for each room of the package; promises, worlds and the house beside them."""
