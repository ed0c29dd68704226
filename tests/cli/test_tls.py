"""TLS: the files that were named, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator
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
from cryptography.x509 import load_pem_x509_certificate

from trioweb._cli.tls import CertificateFiles
from trioweb._errors import CommandError
from trioweb.server import serve
from trioweb.server._tls_extension import distinguished_name

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


seen: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    seen.append(scope["extensions"]["tls"])
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@contextlib.asynccontextmanager
async def serving(server_side: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a server with that context."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, port=0, ssl_context=server_side))
        yield int(server.urls[0].rpartition(":")[2])
        await server.shutdown()


async def test_a_client_without_a_certificate_gets_no_answer(files: Folder) -> None:
    async with serving(context(files.both, ca_certs=files.ca)) as port:
        assert (await answer(port, known_client(files))).startswith(b"HTTP/1.1 204")
        with pytest.raises(trio.BrokenResourceError):
            await answer(port, unknown_client(files))


async def test_the_app_sees_who_the_client_is(files: Folder) -> None:
    optional = context(files.both, ca_certs=files.ca, cert_reqs=ssl.CERT_OPTIONAL)
    seen.clear()
    async with serving(optional) as port:
        await answer(port, known_client(files))
        await answer(port, unknown_client(files))
    known, unknown = seen
    [certificate] = known["client_cert_chain"]
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    subject = load_pem_x509_certificate(certificate.encode()).subject
    assert known["client_cert_name"] == subject.rfc4514_string()
    assert known["client_cert_name"].startswith(r"CN=Ada\, Countess,OU=")
    assert (unknown["client_cert_chain"], unknown["client_cert_name"]) == ([], None)
    for each in seen:
        assert (each["tls_version"], each["cipher_suite"] >> 8) == (0x0304, 0x13)
        assert (each["server_cert"], each["client_cert_error"]) == (None, None)


def known_client(files: Folder) -> ssl.SSLContext:
    client = unknown_client(files)
    files.authority.issue_cert("client", common_name="Ada, Countess").configure_cert(client)
    return client


def unknown_client(files: Folder) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files.ca)


async def answer(port: int, client: ssl.SSLContext) -> bytes:
    stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=client)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return bytes(await stream.receive_some())


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), ""),
        (((("countryName", "GB"),), (("commonName", "Ada"),)), "CN=Ada,C=GB"),
        (((("commonName", "a,b+c\\"), ("userId", "1")),), r"CN=a\,b\+c\\+UID=1"),
        (((("commonName", " a "),),), r"CN=\ a\ "),
        (((("commonName", "#a\0"),),), r"CN=\#a\00"),
        (((("serialNumber", "7"),),), "serialNumber=7"),
    ],
)
def test_names_are_written_so_that_no_value_can_end_one(subject: Any, name: str) -> None:
    assert distinguished_name(subject) == name
