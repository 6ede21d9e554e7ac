"""Servers that are slow, endless, or wrong."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections import Counter
from contextlib import suppress

import pytest

from imgsearch.settings import SearchSettings
from searcher.content.url_rules import FetchRefused, Reason
from searcher.search.errors import Problem
from tests.searcher.content.web import (
    HOST,
    LIMITS,
    OK,
    PICTURE,
    SHORT_TIME,
    BlockedResolver,
    Network,
    ReadingFetcher,
    Reply,
    endless_reply,
    fixed_reply,
    reason,
    redirect_to_stalled,
    refusal,
    resolver,
    stalled_reply,
)

pytestmark = pytest.mark.anyio

# Servers that are slow, endless, or wrong.


@pytest.mark.parametrize(
    "reply",
    [
        stalled_reply(b""),
        stalled_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX"),
        stalled_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        stalled_reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        endless_reply(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        redirect_to_stalled,
    ],
    ids=["silent", "in its headers", "in its body", "in its chunks", "never at the answer", "after a redirect"],
)
async def test_a_slow_server_is_left_when_the_time_is_over(network: Network, reply: Reply) -> None:
    error = await refusal(network.get(reply, **SHORT_TIME))
    assert error.reason is Reason.TIMEOUT
    assert "0.2 s" in error.detail


async def test_a_server_that_does_not_end_its_handshake_is_left(network: Network) -> None:
    async with network.serving(fixed_reply(b""), scheme="http") as server:
        assert (
            await reason(network.fetcher(server, **SHORT_TIME).read(f"https://{HOST}:{server.port}/")) is Reason.TIMEOUT
        )
        await server.client_closed.wait()


async def test_a_resolver_that_does_not_answer_is_left_and_its_client_alone_waits_for_it(network: Network) -> None:
    """A lookup cannot be stopped. So it keeps its place after the deadline, and the places of others stay free."""
    resolve = BlockedResolver()
    async with network.serving(fixed_reply(OK), scheme="http") as server:
        fetcher = network.fetcher(server, resolve, url_schemes="http", url_seconds=0.5, url_fetches=3)
        slow, fast = (f"http://{host}:{server.port}/" for host in ("slow.example", HOST))

        async def outcome(url: str) -> str:
            try:
                return "image" if await fetcher.read(url, "a") == PICTURE else "another image"
            except FetchRefused as error:
                return error.reason.name
            except Problem as error:
                return str(error.status)

        outcomes = await asyncio.gather(*(outcome(slow) for _ in range(40)))
        assert Counter(outcomes) == {"TIMEOUT": 3, "429": 37}
        assert await outcome(fast) == "429"  # its places are held by lookups
        assert resolve.lookups == 3
        assert await fetcher.read(fast, "b") == PICTURE
        resolve.may_end.set()
        assert [await outcome(fast) for _ in range(3)] == ["image"] * 3


async def test_a_client_that_hangs_up_keeps_the_places_of_its_lookups(network: Network) -> None:
    resolve = BlockedResolver()
    async with network.serving(fixed_reply(OK)) as server:
        fetcher = network.fetcher(server, resolve, url_fetches=1, max_urls=1)
        fetch = asyncio.create_task(fetcher.read(f"https://slow.example:{server.port}/", "a"))
        while not resolve.lookups:
            await asyncio.sleep(0)
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        fast = f"https://{HOST}:{server.port}/"
        with pytest.raises(Problem, match="1 images of this client are being fetched"):
            await fetcher.read(fast, "a")
        assert await fetcher.read(fast, "b") == PICTURE
        resolve.may_end.set()
        async with asyncio.timeout(60):
            while True:
                with suppress(Problem):
                    assert await fetcher.read(fast, "a") == PICTURE
                    break
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("reply", "expected", "value"),
    [
        (endless_reply(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100), Reason.TOO_LARGE, "1,000 bytes"),
        (
            endless_reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10),
            Reason.TOO_LARGE,
            "1,000 bytes",
        ),
        (stalled_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"), Reason.TOO_LARGE, "1,000 bytes"),
        (
            stalled_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
            Reason.TOO_LARGE,
            "1,000 bytes",
        ),
        (endless_reply(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), Reason.CONNECTION, ""),
        (endless_reply(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000), Reason.CONNECTION, ""),
        (endless_reply(b"", b"not HTTP" * 1000), Reason.CONNECTION, ""),
        (fixed_reply(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Reason.CONNECTION, ""),
        (fixed_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Reason.CONNECTION, ""),
        (fixed_reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), Reason.CONNECTION, ""),
        (fixed_reply(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), Reason.CONNECTION, ""),
        (fixed_reply(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nsecret"), Reason.STATUS, "status 404"),
        (fixed_reply(b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\na"), Reason.STATUS, "status 206"),
        (fixed_reply(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), Reason.STATUS, "status 302"),
        (
            fixed_reply(b"HTTP/1.1 300 Choices\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"),
            Reason.STATUS,
            "status 300",
        ),
        (fixed_reply(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), Reason.CONNECTION, ""),
    ],
)
async def test_a_server_that_has_no_end_or_no_picture_is_refused(
    network: Network, reply: Reply, expected: Reason, value: str
) -> None:
    error = await refusal(network.get(reply))
    assert error.reason is expected
    assert value in error.detail
    assert "secret" not in error.detail


async def test_what_is_compressed_is_refused_before_it_is_read(network: Network) -> None:
    bomb = gzip.compress(bytes(900_000))
    assert len(bomb) < LIMITS["max_body_bytes"]
    for coding in (b"gzip", b"GZIP", b"br", b"gzip, identity"):
        start = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(bomb))
        assert await reason(network.get(fixed_reply(start + bomb))) is Reason.COMPRESSED


async def test_what_is_compressed_and_does_not_say_so_stays_compressed(network: Network) -> None:
    bomb = gzip.compress(bytes(900_000))
    start = b"HTTP/1.1 200 OK\r\nContent-Type: image/svg+xml\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    assert await network.get(fixed_reply(start + bomb)) == bomb


async def test_a_server_that_breaks_off_is_refused(network: Network) -> None:
    async def leave(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        writer.close()

    async def break_tls(_: bytes, writer: asyncio.StreamWriter) -> None:
        os.write(writer.get_extra_info("socket").fileno(), b"no TLS record" * 10)
        await asyncio.Event().wait()

    assert await reason(network.get(leave)) is Reason.CONNECTION
    assert await reason(network.get(break_tls)) is Reason.CONNECTION


async def test_a_server_without_a_valid_certificate_of_this_name_is_refused(network: Network) -> None:
    resolve = resolver(**{"other.example": "127.0.0.1"})
    async with network.serving(fixed_reply(OK)) as server:
        url = f"https://other.example:{server.port}/"
        assert await reason(network.fetcher(server, resolve).read(url)) is Reason.CONNECTION
        unknown = ReadingFetcher(
            SearchSettings(url_allow=f"*.example:{server.port}"),
            resolve=resolver(),
            allowed=lambda address, named: True,
            tls=None,
        )
        assert await reason(unknown.read(f"https://{HOST}:{server.port}/")) is Reason.CONNECTION
        assert not server.requests
