"""TLS: the files that were named, and what is said of wrong ones."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from trioweb._cli.tls import CertificateFiles
from trioweb._errors import CommandError
from trioweb.server import serve

PASSWORD = "pass: wörd"


class Folder:
    """Certificates and keys of one authority, in files."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("localhost")
        self.cert = self.write("cert.pem", *(blob.bytes() for blob in issued.cert_chain_pems))
        self.key = self.write("key.pem", issued.private_key_pem.bytes())
        self.both = self.write("both.pem", issued.private_key_and_cert_chain_pem.bytes())
        self.other_key = self.write(
            "other.pem", self.authority.issue_cert("localhost").private_key_pem.bytes()
        )
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        encryption = BestAvailableEncryption(PASSWORD.encode())
        self.encrypted = self.write(
            "encrypted.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        )

    def write(self, name: str, *content: bytes) -> str:
        (self.path / name).write_bytes(b"".join(content))
        return str(self.path / name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("tls"))


def context(certfile: str, keyfile: str | None = None, **more: Any) -> ssl.SSLContext:
    made = CertificateFiles(certfile=certfile, keyfile=keyfile, **more).context()
    assert made is not None
    return made


def test_certificates_and_keys(files: Folder) -> None:
    for made in (
        context(files.cert, files.key),
        context(files.both),
        context(files.cert, files.encrypted, password=PASSWORD),
        context(files.cert, files.key, password="of no use, and no harm"),
    ):
        assert made.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert made.verify_mode is ssl.CERT_NONE
    assert CertificateFiles().context() is None


def refused(*named: str | None, **more: Any) -> str:
    certfile, keyfile = (*named, None)[:2]
    with pytest.raises(CommandError) as error:
        CertificateFiles(certfile=certfile, keyfile=keyfile, **more).context()
    return str(error.value)


def test_an_encrypted_key_needs_its_password_and_asks_nobody(
    files: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    told = refused(files.cert, files.encrypted)
    assert f"{files.encrypted} is encrypted" in told
    assert "--ssl-keyfile-password …, or TRIOWEB_SSL_KEYFILE_PASSWORD" in told
    told = refused(files.cert, files.encrypted, password="wrong")
    assert f"{files.encrypted} can't be decrypted with that password" in told
    assert capfd.readouterr() == ("", "")


def test_what_is_wrong_with_files_is_said_of_each(files: Folder) -> None:
    binary = files.write("cert.der", ssl.PEM_cert_to_DER_cert(Path(files.ca).read_text()))
    broken = files.write(
        "broken.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    assert f"{binary} is no PEM file" in refused(binary, files.key)
    assert "openssl x509" in refused(binary, files.key)
    assert f"{files.key} has no certificate in it" in refused(files.key, files.cert)
    assert f"{files.cert} has no private key in it" in refused(files.cert)
    assert f"wrong:  --ssl-keyfile {files.cert}" in refused(files.cert, files.cert)
    assert "the key isn't that of the certificate" in refused(files.cert, files.other_key)
    assert "can't be used: " in refused(broken, files.key)
    missing = str(files.path / "missing.pem")
    assert f"--ssl-keyfile {missing}: No such file" in refused(files.cert, missing)


def test_a_password_is_told_to_nobody(files: Folder) -> None:
    assert PASSWORD not in repr(CertificateFiles(password=PASSWORD))
    assert PASSWORD not in refused(None, password=PASSWORD)


@pytest.mark.parametrize(
    ("more", "option"),
    [
        ({"keyfile": "key.pem"}, "--ssl-keyfile key.pem"),
        ({"password": "secret"}, "--ssl-keyfile-password …"),
        ({"ca_certs": "ca.pem"}, "--ssl-ca-certs ca.pem"),
        ({"cert_reqs": ssl.CERT_OPTIONAL}, "--ssl-cert-reqs optional"),
    ],
)
def test_what_is_of_no_use_without_a_certificate(more: dict[str, Any], option: str) -> None:
    with pytest.raises(CommandError) as error:
        CertificateFiles(**more).context()
    assert f"right:  --ssl-certfile cert.pem {option}" in str(error.value)


def test_whom_clients_are_known_by(files: Folder) -> None:
    def mode(**more: Any) -> ssl.VerifyMode:
        return context(files.both, **more).verify_mode

    assert mode(ca_certs=files.ca) is ssl.CERT_REQUIRED
    assert mode(ca_certs=files.ca, cert_reqs=ssl.CERT_OPTIONAL) is ssl.CERT_OPTIONAL
    assert mode(ca_certs=files.ca, cert_reqs=ssl.CERT_NONE) is ssl.CERT_NONE
    assert mode(cert_reqs=ssl.CERT_NONE) is ssl.CERT_NONE
    told = refused(files.both, cert_reqs=ssl.CERT_REQUIRED)
    assert "right:  --ssl-cert-reqs required --ssl-ca-certs clients.pem" in told
    assert "has no certificate in it" in refused(files.both, ca_certs=files.key)
    broken = files.write("broken-ca.pem", b"-----BEGIN CERTIFICATE-----\n?")
    assert refused(files.both, ca_certs=broken).startswith(f"--ssl-ca-certs {broken}: ")


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def test_a_client_without_a_certificate_gets_no_answer(files: Folder) -> None:
    trusting = ssl.create_default_context(cafile=files.ca)
    known = ssl.create_default_context(cafile=files.ca)
    files.authority.issue_cert("client").configure_cert(known)
    serving = functools.partial(
        serve, app, port=0, ssl_context=context(files.both, ca_certs=files.ca)
    )
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serving)
        port = int(server.urls[0].rpartition(":")[2])
        assert (await answer(port, known)).startswith(b"HTTP/1.1 204")
        with pytest.raises(trio.BrokenResourceError):
            await answer(port, trusting)
        await server.shutdown()


async def answer(port: int, client: ssl.SSLContext) -> bytes:
    stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=client)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return bytes(await stream.receive_some())
