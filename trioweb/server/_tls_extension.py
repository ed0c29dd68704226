"""What the app may know of a TLS connection: ASGI's extension `tls`.

Rules of this module:

* It says what the handshake found.  A client certificate that couldn't be verified ends the
  handshake, so one that is here was verified.
* A name is written as RFC 4514 wants it: what stands in a value can't end it.
"""

from __future__ import annotations

import ssl
from typing import Any

TLSExtension = dict[str, Any]

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

# RFC 4514, 3: what these are called there.
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}


def tls_extension(session: ssl.SSLObject) -> TLSExtension:
    """Of a session that has shaken hands."""
    certificate = session.getpeercert(binary_form=True)
    # As `getpeercert` has it, which is typed for the worst.
    subject: Any = (session.getpeercert() or {}).get("subject", ())
    [suite, *_] = session.cipher() or [""]
    # Their numbers have a prefix of OpenSSL's.
    numbers = {each["name"]: each["id"] & 0xFFFF for each in session.context.get_ciphers()}
    return {
        "server_cert": None,  # Python doesn't say
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else [],
        "client_cert_name": distinguished_name(subject) if certificate else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(session.version() or ""),
        "cipher_suite": numbers.get(suite),
    }


def distinguished_name(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """From the names as `getpeercert` has them; the last one comes first."""
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in names)
        for names in reversed(subject)
    )


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{char}" if char in '"+,;<>\\' else char for char in value)
    escaped = escaped.replace("\0", "\\00")
    if escaped.endswith(" "):
        escaped = f"{escaped[:-1]}\\ "
    return f"\\{escaped}" if escaped.startswith((" ", "#")) else escaped
