"""Certificates for tests, by an authority that lives as long as they do."""

from __future__ import annotations

import functools
import ssl

import trustme


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


@functools.cache
def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """`version`: of TLS, the highest that the client speaks."""
    context = ssl.create_default_context()
    context.maximum_version = version
    _authority().configure_trust(context)
    return context
