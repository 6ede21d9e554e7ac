"""A certificate authority, and servers and fetchers that trust it."""

from __future__ import annotations

import ssl

import pytest
import trustme

from tests.searcher.content.web import (
    HOST,
    Network,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, "*.photos.example", "xn--bcher-kva.example", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def network(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Network:
    return Network(server_tls, client_tls)
