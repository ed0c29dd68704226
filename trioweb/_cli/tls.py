"""TLS: from the files that were named to the context that a server needs.

Rules of this module:

* The files are read here, so that what is wrong with them is said before anything listens.
* What the context allows is Python's default for servers, which refuses old versions of TLS.
"""

from __future__ import annotations

import ssl

from .._errors import CommandError


def server_context(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    """Raises CommandError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ValueError) as exc:
        raise CommandError(
            f"the certificate or its key can't be used: {exc}",
            wrong=certfile if keyfile is None else f"{certfile} and {keyfile}",
            right="certificates in PEM format, the server's own first, and the key to that one",
        ) from None
    return context
