"""Fetches the picture behind an `image_url`, and nothing else that such an address could be made to reach.

Whoever may search may have this process send requests, and it stands inside a network that they do not. So a URL is
read once, its name is looked up once per request, each of its addresses is checked, and the connection is made to one
of those: a name that has another address a moment later (DNS rebinding) changes nothing. Redirects go the same way.
httpcore, below httpx, knows no cookies, no redirects, no compression and no proxies.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from imgsearch.errors import UsageError
from imgsearch.settings import SearchSettings
from searcher.search.errors import Problem, invalid

logger = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to its addresses, the best one first; none where the name is not known."""
Allowed = Callable[[Address, bool], bool]
"""What `may_be_asked` is."""

MAX_REDIRECTS = 3
MAX_FETCHES = 16
"""Pictures that are fetched or in use at a time; others wait. Each may be `max_body_bytes` in memory."""

PORTS = {"http": 80, "https": 443}
USUAL = frozenset(PORTS.values())
REDIRECTS = (301, 302, 303, 307, 308)
UPLOAD = "send the picture itself, as `image`"

_UNREACHABLE = (httpcore.NetworkError, httpcore.TimeoutException)
"""The latter is of the system: we set none of httpcore's timeouts."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")

_GLOBAL_UNICAST = ip_network("2000::/3")
_EMBEDDING = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))
"""The last 32 bits are an IPv4 address: IPv4-mapped (RFC 4291), and NAT64 (RFC 6052), by which a cluster that has
IPv6 only reaches every IPv4 host."""

_NOT_PUBLIC = tuple(
    map(
        ip_network,
        [
            "192.0.0.0/24",  # IETF protocols; Oracle's metadata are in there
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # Azure's metadata, at what looks like any public address
            "2002::/16",  # 6to4: an IPv4 address is inside, and the way there is a tunnel
            "3fff::/20",  # documentation
        ],
    )
)
"""What `ipaddress` of some Python 3.11 calls global, and is not to be asked."""

_PRIVATE = tuple(map(ip_network, ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]))
"""RFC 1918 and RFC 4193."""

_METADATA = frozenset(map(ip_address, ["fd00:ec2::254", "fd20:ce::254", "fd00:42::42"]))
"""Of AWS, Google and Scaleway, where credentials are, among the private addresses. The others are link-local
(169.254.169.254), shared (100.100.100.200) or in `_NOT_PUBLIC`."""


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, or the address itself."""
    if any(address in network for network in _EMBEDDING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def may_be_asked(address: Address, named: bool) -> bool:
    """Whether a connection to it may be made. `named`: the allow list names its host exactly, which opens private
    networks, and nothing else."""
    address = unwrapped(address)
    if named and address not in _METADATA and any(address in network for network in _PRIVATE):
        return True
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


async def look_up(host: str, port: int) -> list[str]:
    """What the system's resolver says, asked in a thread."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(sockaddr[0]) for *_, sockaddr in found]


@dataclass(frozen=True)
class Pattern:
    """An entry of the allow or the deny list: `host`, `*.host` or `address`, and `:port` after it or not."""

    host: str
    port: int | None
    below: bool
    """Every host whose name ends in `.host`, but not that one itself."""

    @classmethod
    def parse(cls, text: str, setting: str) -> Pattern:
        """Raises UsageError, naming the setting, for what is no entry."""
        below = text.startswith("*.")
        try:
            if set(text) & set("/?#"):
                raise ValueError("it is more than a host and a port")
            url = httpx.URL("//" + text.removeprefix("*."))
            host = _host(url)
        except (httpx.InvalidURL, ValueError):
            raise UsageError(
                f"{setting} has {text!r} in it: write hosts like photos.example.com or *.example.com, with :port after "
                "them or not, and commas between them"
            ) from None
        return cls(host, url.port, below)

    def matches(self, host: str) -> bool:
        return host.endswith(f".{self.host}") if self.below else host == self.host


def _host(url: httpx.URL) -> str:
    """Its one spelling; raises ValueError where the URL has more or less than a host and a port before its path."""
    host = url.raw_host.decode()
    if url.userinfo:
        raise ValueError("it has a user's name in it")
    if ":" in host and "%" not in host:
        return str(IPv6Address(host))
    if not _NAME.fullmatch(host):
        raise ValueError("it has no host")
    return host


class Rules:
    """Which hosts may be asked, and which addresses of them. No I/O here."""

    def __init__(self, limits: SearchSettings) -> None:
        """Raises UsageError for settings that cannot be read."""
        self._schemes = _listed(limits.url_schemes)
        if unknown := set(self._schemes) - PORTS.keys():
            raise UsageError(f"IMGSEARCH_SEARCH_URL_SCHEMES has {', '.join(sorted(unknown))} in it: https or http")
        self._allow = [Pattern.parse(text, "IMGSEARCH_SEARCH_URL_ALLOW") for text in _listed(limits.url_allow)]
        self._deny = [Pattern.parse(text, "IMGSEARCH_SEARCH_URL_DENY") for text in _listed(limits.url_deny)]

    def target(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        """What to ask for; raises Problem for what may not be. `base`: where `text` was found, as a redirect."""
        try:
            url = base.join(text) if base else httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            raise _refused("this is no URL; write it as a browser shows it") from None
        if not self._schemes:
            raise _refused(f"this searcher fetches nothing: {UPLOAD}")
        if url.scheme not in self._schemes:
            raise _refused(f"its address must begin with {' or '.join(f'{scheme}://' for scheme in self._schemes)}")
        try:
            host = _host(url)
        except ValueError:
            raise _refused("this URL has no host, or a name before it; write https://HOST/PATH") from None
        port = PORTS[url.scheme] if url.port is None else url.port
        allowed = bool(self._allowing(host, port)) if self._allow else port in USUAL
        if not allowed or self._denies(host, port):
            raise _refused(f"this searcher fetches nothing from port {port} of {host}: {UPLOAD}")
        return url

    def names(self, host: str, port: int) -> bool:
        """Whether the allow list has this very host."""
        return any(not entry.below for entry in self._allowing(host, port))

    def denies(self, address: Address, port: int) -> bool:
        """Whether the deny list has this address, however the URL came to it."""
        return self._denies(str(unwrapped(address)), port)

    def _allowing(self, host: str, port: int) -> list[Pattern]:
        entries = [entry for entry in self._allow if entry.matches(host)]
        return [entry for entry in entries if port == entry.port or (entry.port is None and port in USUAL)]

    def _denies(self, host: str, port: int) -> bool:
        return any(entry.matches(host) and entry.port in (None, port) for entry in self._deny)


class Fetcher:
    """Fetches pictures over HTTP, for at most `url_seconds` and of at most `max_body_bytes`."""

    def __init__(
        self,
        limits: SearchSettings,
        *,
        resolve: Resolve = look_up,
        allowed: Allowed = may_be_asked,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises UsageError for settings that cannot be read. `tls` says which certificates are valid: by default
        those of the usual authorities, or of SSL_CERT_FILE."""
        self._rules = Rules(limits)
        self._seconds = limits.url_seconds
        self._max_bytes = limits.max_body_bytes
        self._places = asyncio.Semaphore(MAX_FETCHES)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(),
            max_connections=None,  # each place has one at a time
            # No connection is used twice, so each request is checked, and there is nothing to close at the end.
            max_keepalive_connections=0,
            network_backend=_Network(self._rules, resolve, allowed),
        )

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[bytes]:
        """The body, whatever it is, for as long as it is used; raises Problem, of the field image_url, where there is
        none to be had.

        Its status is always 422: a proxy before us would send a request anew that gets 502 or 504."""
        target = self._rules.target(url)
        async with self._places:
            yield await self._got(target)

    async def _got(self, target: httpx.URL) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(target)
        except TimeoutError:
            raise _refused(f"the picture has not come in {self._seconds:g} s: {UPLOAD}") from None
        except (*_UNREACHABLE, httpcore.ProtocolError, OSError) as error:
            logger.info("image_url: %s: %s", target.host, error)
            raise _refused("its server does not answer as it should, or its certificate is not valid") from None

    async def _follow(self, url: httpx.URL) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._pool.stream("GET", _core(url), headers=_headers(url)) as response:
                location = dict(_lower(response.headers)).get(b"location")
                if response.status not in REDIRECTS or location is None:
                    return await self._body(response)
            url = self._rules.target(location.decode("utf-8", "replace"), base=url)
        raise _refused(f"it leads to another URL more than {MAX_REDIRECTS} times; give the last one")

    async def _body(self, response: httpcore.Response) -> bytes:
        headers = dict(_lower(response.headers))
        if response.status != 200:
            raise _refused(f"its server answers with status {response.status}, not with a picture")
        # Not asked for; a few kilobytes of it may be gigabytes.
        if headers.get(b"content-encoding", b"").lower() not in (b"", b"identity"):
            raise _refused(f"its server sends it compressed, which is not asked for: {UPLOAD}")
        too_large = _refused(f"the picture is larger than {self._max_bytes:,} bytes")
        if int(headers.get(b"content-length", 0)) > self._max_bytes:
            raise too_large
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise too_large
        return bytes(body)


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked; the name is used for TLS alone."""

    def __init__(self, rules: Rules, resolve: Resolve, allowed: Allowed) -> None:
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
        *others, last = await self._checked(host, port)
        for address in others:
            with suppress(*_UNREACHABLE):
                return _Stream(await self._tcp.connect_tcp(address, port, timeout, local_address, socket_options))
        return _Stream(await self._tcp.connect_tcp(last, port, timeout, local_address, socket_options))

    async def _checked(self, host: str, port: int) -> list[str]:
        """The addresses of the host, at least one; raises Problem unless all may be asked.

        It is the same Problem where there is no such name, so that nobody learns the names of this network."""
        addresses = [ip_address(text) for text in await self._resolve(host, port)]
        named = self._rules.names(host, port)
        refused = [
            address for address in addresses if self._rules.denies(address, port) or not self._allowed(address, named)
        ]
        if refused or not addresses:
            logger.info("image_url: %s is not asked; its addresses: %s", host, ", ".join(map(str, addresses)) or "none")
            raise _refused(f"{host} has no address that this searcher fetches from: {UPLOAD}")
        return [str(address) for address in addresses]


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is also closed when the time is over in the middle of its handshake, which httpcore forgets."""

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


def _refused(problem: str) -> Problem:
    return invalid("image_url", problem)


def _listed(text: str) -> list[str]:
    return [entry.strip().lower() for entry in text.split(",") if entry.strip()]


def _core(url: httpx.URL) -> httpcore.URL:
    """As it was read: nothing parses the text a second time."""
    return httpcore.URL(scheme=url.raw_scheme, host=_host(url), port=url.port, target=url.raw_path)


def _headers(url: httpx.URL) -> list[tuple[bytes, bytes]]:
    return [(b"Host", url.netloc), (b"User-Agent", b"imgsearch"), (b"Accept-Encoding", b"identity")]


def _lower(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.lower(), value.strip()) for name, value in headers)
