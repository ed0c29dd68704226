"""The package is built as its map says, shows what it should, and does what its pages say."""
