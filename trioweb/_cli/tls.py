"""TLS: from the files that were named to the context that a server needs.

Rules of this module:

* The files are read here, so that what is wrong with them is said before anything listens: which
  file it is, and which option mends it.  Nobody is asked for a password: a server may have no
  terminal, and its workers none at all.
* What the context allows is Python's default for servers, which refuses old versions of TLS.
* Whoever names certificates to know clients by wants to see one: that nobody need have any is to
  be said.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from .._errors import CommandError

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """What the options of TLS name: `--ssl-certfile`, and those that are of no use without it.

    `cert_reqs`: None is required where there are `ca_certs`, else none.
    """

    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    cert_reqs: ssl.VerifyMode | None = None

    def context(self) -> ssl.SSLContext | None:
        """What a server serves TLS with; None if no certificate was named.  Raises CommandError."""
        if self.certfile is None:
            self._refuse_the_rest()
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        self._load_key(context, self.certfile)
        self._ask_clients(context)
        return context

    def _refuse_the_rest(self) -> None:
        for option, value in (
            ("--ssl-keyfile", self.keyfile),
            ("--ssl-keyfile-password", self.password and "…"),
            ("--ssl-ca-certs", self.ca_certs),
            ("--ssl-cert-reqs", self.cert_reqs and _word(self.cert_reqs)),
        ):
            if value is not None:
                raise CommandError(
                    f"{option} is of no use without a certificate of the server's own",
                    wrong=f"{option} {value}",
                    right=f"--ssl-certfile cert.pem {option} {value}",
                )

    def _load_key(self, context: ssl.SSLContext, certfile: str) -> None:
        _check_holds(certfile, _CERTIFICATE, "--ssl-certfile", "certificate")
        option = "--ssl-certfile" if self.keyfile is None else "--ssl-keyfile"
        keyfile = self.keyfile or certfile
        _check_holds(keyfile, _KEY, option, "private key")
        password = _Password(keyfile, self.password)
        try:
            context.load_cert_chain(certfile, keyfile, password)
        except (OSError, ValueError) as exc:
            raise self._unloadable(exc, certfile, keyfile, password) from None

    def _unloadable(
        self, exc: Exception, certfile: str, keyfile: str, password: _Password
    ) -> CommandError:
        files = " and ".join(dict.fromkeys([certfile, keyfile]))
        if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            return CommandError(
                "the key isn't that of the certificate, or the server's own isn't the first",
                wrong=files,
                right="a certificate and the key that it was made with",
            )
        if password.asked:
            return CommandError(
                f"{keyfile} can't be decrypted with that password",
                wrong="--ssl-keyfile-password …",
                right="the password that the key was encrypted with",
            )
        return CommandError(
            f"the certificate or its key can't be used: {exc}",
            wrong=files,
            right="certificates in PEM format, the server's own first, and the key to that one",
        )

    def _ask_clients(self, context: ssl.SSLContext) -> None:
        if self.ca_certs is not None:
            _check_holds(self.ca_certs, _CERTIFICATE, "--ssl-ca-certs", "certificate")
            try:
                context.load_verify_locations(self.ca_certs)
            except OSError as exc:
                raise CommandError(f"--ssl-ca-certs {self.ca_certs}: {exc}") from None
            context.verify_mode = ssl.CERT_REQUIRED if self.cert_reqs is None else self.cert_reqs
        elif self.cert_reqs:
            raise CommandError(
                "clients' certificates can't be checked without those that have signed them",
                wrong=f"--ssl-cert-reqs {_word(self.cert_reqs)}",
                right=f"--ssl-cert-reqs {_word(self.cert_reqs)} --ssl-ca-certs clients.pem",
            )


class _Password:
    """OpenSSL asks for it where the key is encrypted, and nowhere else."""

    def __init__(self, keyfile: str, given: str | None) -> None:
        self.asked = False
        self._keyfile = keyfile
        self._given = given

    def __call__(self) -> str:
        self.asked = True
        if self._given is None:
            raise CommandError(
                f"{self._keyfile} is encrypted, and nothing says with which password",
                wrong=f"--ssl-keyfile {self._keyfile}",
                right=f"--ssl-keyfile {self._keyfile} --ssl-keyfile-password …,"
                " or TRIOWEB_SSL_KEYFILE_PASSWORD",
            )
        return self._given


def _check_holds(file: str, mark: bytes, option: str, what: str) -> None:
    """Raises CommandError if a file has nothing of that kind."""
    try:
        content = Path(file).read_bytes()
    except OSError as exc:
        raise CommandError(f"{option} {file}: {exc.strerror}") from None
    if mark in content:
        return
    problem = f"has no {what} in it" if b"-----BEGIN " in content else "is no PEM file"
    raise CommandError(
        f"{file} {problem}",
        wrong=f"{option} {file}",
        right="--ssl-certfile cert.pem --ssl-keyfile key.pem, each text that has a line"
        " -----BEGIN … in it; openssl x509 or pkey -inform DER makes it of a binary file",
    )


def _word(mode: ssl.VerifyMode) -> str:
    return mode.name.removeprefix("CERT_").lower()
