"""What requests and responses have in common: tokens, fields, and which fields are no trailers.

Rules of this module:

* It has the grammar of RFC 9110 as patterns and sets, and no code.
"""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# RFC 9110, 5.5: visible characters, space, tab, and obs-text; no control characters.
FIELD = rb"(?:%s++:[\t -~\x80-\xff]*+\r\n)" % TOKEN

# RFC 9110, 6.5.1: framing, routing, request modifiers and authentication.
NO_TRAILERS = frozenset(
    (
        *(b"content-length", b"transfer-encoding", b"trailer", b"te", b"host"),
        *(b"connection", b"keep-alive", b"proxy-connection", b"upgrade"),
        *(b"expect", b"max-forwards", b"authorization", b"proxy-authorization", b"cookie"),
    )
)
