"""Classes and functions over two modules, whose annotations are texts: what `base` imports, `below`
doesn't know."""
