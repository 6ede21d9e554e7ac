"""Web servers on 127.0.0.1, a resolver, and fetchers that may connect to them."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from imgsearch.settings import SearchSettings
from searcher.content.fetcher import Fetcher, Resolve
from searcher.content.url_rules import FetchRefused, Reason, is_allowed
from searcher.search.metrics import Metrics

PICTURE = b"\x89PNG, or what a decoder will say it is"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PICTURE), PICTURE)
HOST = "photos.example"
LIMITS: dict[str, Any] = {"max_body_bytes": 1000, "url_seconds": 60.0}
SHORT_TIME: dict[str, Any] = {"url_seconds": 0.2}
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no authority; to read the usual ones takes most of the time of a test."""
Reply = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class WebServer:
    """A web server on 127.0.0.1: what it was asked, and how many connections it had."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.requests: list[bytes] = []
        self.client_closed = asyncio.Event()
        """Set when a client has closed its connection."""

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None) -> AsyncIterator[WebServer]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(request)
                await self._reply(request, writer)
                await writer.drain()
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            self.client_closed.set()
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


def fixed_reply(response: bytes) -> Reply:
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response)

    return reply


def redirects(locations: Mapping[str, str], status: int = 302) -> Reply:
    """From a path to a Location; elsewhere is the picture."""

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        location = locations.get(request.split()[1].decode())
        if location is None:
            writer.write(OK)
        else:
            writer.write(
                b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location.encode())
            )

    return reply


def endless_reply(first: bytes, repeated: bytes) -> Reply:
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(repeated)
            await writer.drain()
            await asyncio.sleep(0)  # drain does not always let others run

    return reply


def stalled_reply(first: bytes) -> Reply:
    """Says something, and then nothing for ever."""

    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await asyncio.Event().wait()

    return reply


async def redirect_to_stalled(request: bytes, writer: asyncio.StreamWriter) -> None:
    if b"/stall" in request:
        await asyncio.Event().wait()
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: /stall\r\nContent-Length: 0\r\n\r\n")


class BlockedResolver:
    """A resolver that gives an address to one name at once, and to every other name when the test lets it."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.lookups = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups += 1
        if host != HOST:
            assert self.may_end.wait(60)
        return ["127.0.0.1"]


class FakeResolver:
    """A resolver that knows some names; each look-up of one has its next answer, and the last one stays."""

    def __init__(self, **addresses_by_name: Sequence[Sequence[str]]) -> None:
        self._addresses = {name: list(lookups) for name, lookups in addresses_by_name.items()}
        self.lookups: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        addresses = self._addresses.get(host)
        if addresses is None:
            return []
        return addresses.pop(0) if len(addresses) > 1 else addresses[0]


def resolver(**addresses: str) -> FakeResolver:
    return FakeResolver(**{HOST: [["127.0.0.1"]], **{name: [text.split()] for name, text in addresses.items()}})


class ReadingFetcher(Fetcher):
    """Has no use for the pictures but to show them."""

    def __init__(self, limits: SearchSettings, *, tls: ssl.SSLContext | None = NO_TRUST, **options: Any) -> None:
        super().__init__(limits, Metrics(), tls=tls, **options)

    async def read(self, url: str, client: str = "") -> bytes:
        async with self.get(url, client) as data:
            return data


class Network:
    """A site, and fetchers that take its address for a public one unless they are told not to."""

    def __init__(self, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
        self._server_tls = server_tls
        self._client_tls = client_tls

    def serving(self, reply: Reply, *, scheme: str = "https") -> Any:
        return WebServer(reply).running(self._server_tls if scheme == "https" else None)

    def fetcher(self, server: WebServer, resolve: Resolve | None = None, **settings: Any) -> ReadingFetcher:
        return self.strict(
            server, resolve or resolver(), allowed=lambda address, named: address.is_loopback, **settings
        )

    def strict(self, server: WebServer, resolve: Any, **settings: Any) -> ReadingFetcher:
        allowed = settings.pop("allowed", is_allowed)
        settings.setdefault("url_allow", f"{HOST}:{server.port}, *.example:{server.port}")
        return ReadingFetcher(
            SearchSettings(**(LIMITS | settings)), resolve=resolve, allowed=allowed, tls=self._client_tls
        )

    async def get(self, reply: Reply, **settings: Any) -> bytes:
        async with self.serving(reply) as server:
            return await self.fetcher(server, **settings).read(f"https://{HOST}:{server.port}/a.png")


async def refusal(fetching: Awaitable[bytes]) -> FetchRefused:
    """The exception that a fetch ends with."""
    with pytest.raises(FetchRefused) as caught:
        await fetching
    error = caught.value
    assert error.status == 422
    (entry,) = error.errors
    assert entry["field"] == "image_url"
    assert error.detail == f"image_url: {entry['problem']}"
    return error


async def reason(fetching: Awaitable[bytes]) -> Reason:
    """The reason that a fetch is refused for."""
    return (await refusal(fetching)).reason
