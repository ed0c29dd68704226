"""From an annotation to a value and back: what a peer sends is decoded, or explained."""
