"""Fetches the image behind an `image_url`, and reaches nothing else that such a URL could name.

The host is resolved once per request, url_rules.py checks each of its addresses, and the connection is made to one of
those addresses. So a name that resolves to another address a moment later (DNS rebinding) changes nothing. Redirects
are checked in the same way. httpcore, the layer below httpx, has no cookies, redirects, compression or proxies.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from imgsearch.settings import SearchSettings
from searcher.content.fetch_queue import FetchQueue, Place, busy
from searcher.content.url_rules import Address, FetchRefused, Reason, UrlRules, host_of, is_allowed
from searcher.search.metrics import Metrics

log = logging.getLogger(__name__)

Resolve = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host and a port, in the order to try; empty for an unknown name. It may block."""
AddressCheck = Callable[[Address, bool], bool]
"""The signature of `is_allowed`."""

MAX_REDIRECTS = 3
MAX_FETCHES = 16
"""Images that are fetched or in use at a time, of all clients together; other fetches wait. Each may take
`max_body_bytes` of memory."""

REDIRECTS = (301, 302, 303, 307, 308)

_UNREACHABLE = (httpcore.NetworkError, httpcore.TimeoutException)
"""Timeouts are those of the system, because httpcore has none here."""


def resolve_host(host: str, port: int) -> list[str]:
    """Asks the system's resolver. It may block for a minute, and nothing can stop it."""
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(sockaddr[0]) for *_, sockaddr in entries]


class Fetcher:
    """Fetches images over HTTP, within `url_seconds` and up to `max_body_bytes`. The time in the queue counts."""

    def __init__(
        self,
        limits: SearchSettings,
        metrics: Metrics,
        *,
        resolve: Resolve = resolve_host,
        allowed: AddressCheck = is_allowed,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises UsageError for invalid settings. `resolve`: called in threads, up to MAX_FETCHES at a time. `tls`: the
        certificates to trust. Default: the usual authorities, or SSL_CERT_FILE."""
        self._rules = UrlRules(limits)
        self._seconds = limits.url_seconds
        self._max_bytes = limits.max_body_bytes
        self._queue = FetchQueue(
            MAX_FETCHES, client_places=limits.url_fetches, client_entries=limits.max_urls, metrics=metrics
        )
        self._tls = tls or httpx.create_ssl_context()
        self._resolve = resolve
        self._allowed = allowed
        # Not the event loop's own threads: uvloop looks up two slow names at a time, for all clients together. A place
        # is held until its lookup ends, so each lookup finds a free thread.
        self._threads = ThreadPoolExecutor(MAX_FETCHES, thread_name_prefix="resolve")

    @asynccontextmanager
    async def get(self, url: str, client: str) -> AsyncIterator[bytes]:
        """The response body, of any content type, for the client of this name. The place in the queue is held until
        the context ends. Raises FetchRefused, and Problem 429 where too many images are being fetched."""
        checked = self._rules.parse(url)
        deadline = asyncio.get_running_loop().time() + self._seconds
        async with self._queue.place(client, deadline=deadline) as place:
            yield await self._fetch(checked, deadline, place)

    async def _fetch(self, url: httpx.URL, deadline: float, place: Place) -> bytes:
        seconds = deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                return await self._follow(url, self._connections(place))
        except TimeoutError:
            if seconds < self._seconds / 2:  # most of the time went by in the queue
                raise busy() from None
            raise FetchRefused(Reason.TIMEOUT, seconds=self._seconds) from None
        except (*_UNREACHABLE, httpcore.ProtocolError, OSError) as error:
            log.info("image_url: %s: %s", url.host, error)
            raise FetchRefused(Reason.CONNECTION) from None

    def _connections(self, place: Place) -> httpcore.AsyncConnectionPool:
        """The connections of one fetch: one at a time."""

        async def resolve(host: str, port: int) -> Sequence[str]:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._resolve, host, port)
            place.keep_until(lookup)
            await asyncio.wait([lookup])  # who is cancelled here does not cancel the lookup, whose thread goes on
            return lookup.result()

        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            # No connection is used twice: so each request is checked, and none has to be closed at the end.
            max_keepalive_connections=0,
            network_backend=_Network(self._rules, resolve, self._allowed),
        )

    async def _follow(self, url: httpx.URL, connections: httpcore.AsyncConnectionPool) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with connections.stream("GET", _core_url(url), headers=_headers(url)) as response:
                location = dict(_lower_names(response.headers)).get(b"location")
                if response.status not in REDIRECTS or location is None:
                    return await self._body(response)
            url = self._rules.parse(location.decode("utf-8", "replace"), base=url)
        raise FetchRefused(Reason.REDIRECTS, limit=MAX_REDIRECTS)

    async def _body(self, response: httpcore.Response) -> bytes:
        headers = dict(_lower_names(response.headers))
        if response.status != 200:
            raise FetchRefused(Reason.STATUS, status=response.status)
        # The request allows no compression: a few compressed kilobytes can become gigabytes.
        if headers.get(b"content-encoding", b"").lower() not in (b"", b"identity"):
            raise FetchRefused(Reason.COMPRESSED)
        too_large = FetchRefused(Reason.TOO_LARGE, limit=self._max_bytes)
        if int(headers.get(b"content-length", 0)) > self._max_bytes:
            raise too_large
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise too_large
        return bytes(body)


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only; the host name is used for TLS alone."""

    def __init__(
        self, rules: UrlRules, resolve: Callable[[str, int], Awaitable[Sequence[str]]], allowed: AddressCheck
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._allowed = allowed
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self._addresses(host, port)
        for address in others:
            with suppress(*_UNREACHABLE):
                return _Stream(await self._tcp.connect_tcp(address, port, timeout, local_address, socket_options))
        return _Stream(await self._tcp.connect_tcp(last, port, timeout, local_address, socket_options))

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses of the host, at least one. Raises FetchRefused unless all of them are allowed.

        An unknown name gets the same error, so that clients cannot find out the names of this network."""
        addresses = [ip_address(text) for text in await self._resolve(host, port)]
        listed = self._rules.allows_exactly(host, port)
        refused = [
            address for address in addresses if self._rules.denies(address, port) or not self._allowed(address, listed)
        ]
        if refused or not addresses:
            log.info("image_url: host %s refused; addresses: %s", host, ", ".join(map(str, addresses)) or "none")
            raise FetchRefused(Reason.ADDRESS, host=host)
        return [str(address) for address in addresses]


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is also closed when a timeout interrupts its TLS handshake, which httpcore does not do."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _core_url(url: httpx.URL) -> httpcore.URL:
    """The URL as it was parsed: nothing parses the text a second time."""
    return httpcore.URL(scheme=url.raw_scheme, host=host_of(url), port=url.port, target=url.raw_path)


def _headers(url: httpx.URL) -> list[tuple[bytes, bytes]]:
    return [(b"Host", url.netloc), (b"User-Agent", b"imgsearch"), (b"Accept-Encoding", b"identity")]


def _lower_names(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.lower(), value.strip()) for name, value in headers)
