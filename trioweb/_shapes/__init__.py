"""From an annotation to a value and back: what a peer sends is decoded, or explained.

All that depends on the annotation happens once, at registration, where one that can't be decoded
is refused.  A decoder gives a value or raises `Invalid`, whatever the peer sent; its problems'
places are relative to the value, and the caller puts `"body"` or `"query"` and a name in front.

`text` and `json` are what other rooms decode and encode with; `annotations` says which of the two
an annotation is for.  `explain` finds all that is wrong with a body that was refused.  They stand
on `nodes`, the tree that msgspec makes of an annotation, and on `constraints` of its values.
"""
