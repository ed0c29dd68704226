"""TLS: from the files that were named to the context that a server needs.

Rules of this module:

* The files are read here, so that what is wrong with them is said before anything listens.
* What the context allows is Python's default for servers, which refuses old versions of TLS.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from .._errors import CommandError


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """The files of `--ssl-certfile` and `--ssl-keyfile`."""

    certfile: str | None = None
    keyfile: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """What a server serves TLS with; None if no certificate was named.  Raises CommandError."""
        if self.certfile is None:
            self._refuse_key()
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certfile, self.keyfile)
        except (OSError, ValueError) as exc:
            raise CommandError(
                f"the certificate or its key can't be used: {exc}",
                wrong=" and ".join(filter(None, [self.certfile, self.keyfile])),
                right="certificates in PEM format, the server's own first, and the key to that one",
            ) from None
        return context

    def _refuse_key(self) -> None:
        if self.keyfile is not None:
            raise CommandError(
                "a key is of no use without its certificate",
                wrong=f"--ssl-keyfile {self.keyfile}",
                right=f"--ssl-certfile cert.pem --ssl-keyfile {self.keyfile}",
            )
