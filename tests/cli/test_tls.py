"""TLS: the files that were named, and what is said of wrong ones."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from trioweb._cli.tls import CertificateFiles
from trioweb._errors import CommandError


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing of the kind")
    with pytest.raises(CommandError, match=r"can't be used.*\n +wrong:  \S*cert\.pem\n"):
        CertificateFiles(certfile=str(tmp_path / "cert.pem")).context()


def test_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(
        ssl.SSLContext, "load_cert_chain", lambda self, cert, key: loaded.append((cert, key))
    )
    context = CertificateFiles(certfile="cert.pem", keyfile="key.pem").context()
    assert isinstance(context, ssl.SSLContext)
    assert loaded == [("cert.pem", "key.pem")]
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
