"""The listening socket."""

from __future__ import annotations

import socket

import pytest

from imgsearch.errors import UsageError
from searcher.server.socket import listen


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError) as error:
            listen("127.0.0.1", port)
    assert f"port {port} " in str(error.value)
    assert "--port" in str(error.value)


def test_an_address_that_is_not_ours_is_one_clear_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1 port 8000"):
        listen("192.0.2.1", 8000)


@pytest.mark.parametrize("host", ["a\0b", "\ud800", "a" * 70 + ".example", "\x1b]0;owned\x07"])
def test_what_is_no_host_name_is_one_clear_sentence(host: str) -> None:
    with pytest.raises(UsageError, match="cannot listen on "):
        listen(host, 8000)


@pytest.mark.parametrize(
    ("host", "addresses"), [("0.0.0.0", ["127.0.0.1"]), ("::", ["127.0.0.1", "::1"]), ("::1", ["::1"])]
)
def test_it_listens_on_every_address_or_on_one(host: str, addresses: list[str]) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        for address in addresses:
            socket.create_connection((address, port)).close()
        if "127.0.0.1" not in addresses:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
