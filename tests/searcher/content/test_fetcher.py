"""A picture is fetched from the public internet, and no URL reaches anything else, whatever it looks like."""

from __future__ import annotations

import asyncio
import gzip
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trustme

from imgsearch.errors import UsageError
from imgsearch.settings import SearchSettings
from searcher.content.fetcher import MAX_FETCHES, Fetcher, resolve_host
from searcher.content.url_rules import FetchRefused, Reason, is_allowed

pytestmark = pytest.mark.anyio

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


class FakeResolver:
    """A resolver that knows some names; each look-up of one has its next answer, and the last one stays."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name: list(addresses) for name, addresses in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        addresses = self._answers.get(host)
        if addresses is None:
            return []
        return addresses.pop(0) if len(addresses) > 1 else addresses[0]


def resolver(**addresses: str) -> FakeResolver:
    return FakeResolver(**{HOST: [["127.0.0.1"]], **{name: [text.split()] for name, text in addresses.items()}})


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


class ReadingFetcher(Fetcher):
    """Has no use for the pictures but to show them."""

    def __init__(self, limits: SearchSettings, *, tls: ssl.SSLContext | None = NO_TRUST, **options: Any) -> None:
        super().__init__(limits, tls=tls, **options)

    async def read(self, url: str) -> bytes:
        async with self.get(url) as data:
            return data


class Network:
    """A site, and fetchers that take its address for a public one unless they are told not to."""

    def __init__(self, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
        self._server_tls = server_tls
        self._client_tls = client_tls

    def serving(self, reply: Reply, *, scheme: str = "https") -> Any:
        return WebServer(reply).running(self._server_tls if scheme == "https" else None)

    def fetcher(self, server: WebServer, resolve: FakeResolver | None = None, **settings: Any) -> ReadingFetcher:
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


@pytest.fixture
def network(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Network:
    return Network(server_tls, client_tls)


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


# What is fetched.


async def test_a_picture_is_fetched_with_what_an_http_server_expects_and_no_more(network: Network) -> None:
    async with network.serving(fixed_reply(OK)) as server:
        assert await network.fetcher(server).read(f"https://{HOST}:{server.port}/a%20b.png?size=2#part") == PICTURE
        (request,) = server.requests
    lines = request.decode().splitlines()
    assert lines[0] == "GET /a%20b.png?size=2 HTTP/1.1"
    assert set(lines[1:-1]) == {f"Host: {HOST}:{server.port}", "User-Agent: imgsearch", "Accept-Encoding: identity"}


async def test_a_picture_may_be_as_large_as_an_upload_and_no_larger(network: Network) -> None:
    assert await network.get(fixed_reply(OK), max_body_bytes=len(PICTURE)) == PICTURE
    assert await reason(network.get(fixed_reply(OK), max_body_bytes=len(PICTURE) - 1)) is Reason.TOO_LARGE


async def test_a_picture_may_come_in_chunks_or_until_the_server_leaves(network: Network) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    assert await network.get(fixed_reply(chunked)) == b"abcd"

    async def leave(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Encoding: identity\r\n\r\nabc")
        writer.close()

    assert await network.get(leave) == b"abc"


async def test_plain_http_is_fetched_where_the_settings_say_so(network: Network) -> None:
    async with network.serving(fixed_reply(OK), scheme="http") as server:
        url = f"http://{HOST}:{server.port}/"
        assert await network.fetcher(server, url_schemes="https, HTTP").read(url) == PICTURE
        assert await reason(network.fetcher(server).read(url)) is Reason.SCHEME
        assert await reason(network.fetcher(server, url_schemes="").read(url)) is Reason.DISABLED


async def test_a_name_outside_ascii_is_fetched(network: Network) -> None:
    resolve = resolver(**{"xn--bcher-kva.example": "127.0.0.1"})
    async with network.serving(fixed_reply(OK)) as server:
        fetcher = network.fetcher(server, resolve, url_allow=f"bücher.example:{server.port}")
        assert await fetcher.read(f"https://BÜCHER.example:{server.port}/") == PICTURE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(network: Network, status: int) -> None:
    locations = {"/1": "/2", "/2": "3?a=b", "/3?a=b": ""}
    async with network.serving(redirects(locations, status)) as server:
        locations["/3?a=b"] = f"https://cdn.photos.example:{server.port}/4"
        resolve = resolver(**{"cdn.photos.example": "127.0.0.1"})
        assert await network.fetcher(server, resolve).read(f"https://{HOST}:{server.port}/1") == PICTURE
        assert [request.split()[1] for request in server.requests] == [b"/1", b"/2", b"/3?a=b", b"/4"]
        assert f"Host: cdn.photos.example:{server.port}\r\n".encode() in server.requests[-1]


async def test_the_next_address_is_asked_where_one_does_not_answer(network: Network) -> None:
    async with network.serving(fixed_reply(OK)) as server:
        resolve = resolver(**{HOST: "127.0.0.2 127.0.0.1"})
        assert await network.fetcher(server, resolve).read(f"https://{HOST}:{server.port}/") == PICTURE
        resolve = resolver(**{HOST: "127.0.0.2 127.0.0.3"})
        assert (
            await reason(network.fetcher(server, resolve).read(f"https://{HOST}:{server.port}/")) is Reason.CONNECTION
        )


async def test_a_proxy_of_the_environment_is_not_asked(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network.serving(fixed_reply(OK)) as server, network.serving(fixed_reply(OK), scheme="http") as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await network.fetcher(server).read(f"https://{HOST}:{server.port}/") == PICTURE
        assert proxy.connections == 0


async def test_cookies_are_not_kept(network: Network) -> None:
    setting = b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n"

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK if b"/next" in request else setting)

    async with network.serving(reply) as server:
        assert await network.fetcher(server).read(f"https://{HOST}:{server.port}/") == PICTURE
        assert b"cookie" not in server.requests[-1].lower()


async def test_the_systems_resolver_is_asked_and_an_unknown_name_has_no_address() -> None:
    assert "127.0.0.1" in await resolve_host("localhost", 443)
    assert await resolve_host("no-such-name.invalid", 443) == []


# Addresses that are not public, by every spelling: refused by the real predicate and the system's own resolver.

NUMBERS = {
    "loopback": "https://127.0.0.1/",
    "loopback, elsewhere": "https://127.8.9.10/",
    "loopback, short": "https://127.1/",
    "loopback, decimal": "https://2130706433/",
    "loopback, hex": "https://0x7f000001/",
    "loopback, hex and dots": "https://0x7f.0.0.0x1/",
    "loopback, octal": "https://0177.1/",
    "loopback, mixed": "https://0x7f.1/",
    "loopback, explicit port": "https://127.0.0.1:443/",
    "loopback, IPv6": "https://[::1]/",
    "loopback, IPv6, long": "https://[0:0:0:0:0:0:0:1]/",
    "loopback, IPv6-mapped": "https://[::ffff:127.0.0.1]/",
    "loopback, IPv6-mapped, hex": "https://[::FFFF:7f00:1]/",
    "loopback, IPv4-compatible": "https://[::127.0.0.1]/",
    "loopback, IPv4-translated": "https://[::ffff:0:127.0.0.1]/",
    "loopback, NAT64": "https://[64:ff9b::7f00:1]/",
    "loopback, NAT64 of a network": "https://[64:ff9b:1::7f00:1]/",
    "public, NAT64 of a network": "https://[64:ff9b:1::808:808]/",
    "loopback, 6to4": "https://[2002:7f00:1::]/",
    "loopback, Teredo": "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "unspecified": "https://0.0.0.0/",
    "unspecified, short": "https://0/",
    "unspecified, IPv6": "https://[::]/",
    "this network": "https://0.1.2.3/",
    "private, 10": "https://10.0.0.1/",
    "private, 172": "https://172.31.255.254/",
    "private, 192": "https://192.168.1.1/",
    "private, decimal": "https://3232235777/",
    "private, IPv6-mapped": "https://[::ffff:10.0.0.1]/",
    "private, NAT64": "https://[64:ff9b::10.0.0.1]/",
    "unique local": "https://[fd12:3456::1]/",
    "site local": "https://[fec0::1]/",
    "shared": "https://100.64.0.1/",
    "link-local": "https://169.254.1.1/",
    "link-local, IPv6": "https://[fe80::1]/",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "metadata, decimal": "https://2852039166/",
    "metadata, hex": "https://0xa9fea9fe/",
    "metadata, octal": "https://025177524776/",
    "metadata, IPv6-mapped": "https://[::ffff:169.254.169.254]/",
    "metadata, NAT64": "https://[64:ff9b::a9fe:a9fe]/",
    "metadata, 6to4": "https://[2002:a9fe:a9fe::1]/",
    "metadata, containers": "https://169.254.170.2/v2/credentials",
    "metadata, AWS, IPv6": "https://[fd00:ec2::254]/",
    "metadata, Google, IPv6": "https://[fd20:ce::254]/",
    "metadata, Alibaba": "https://100.100.100.200/",
    "metadata, Azure": "https://168.63.129.16/",
    "metadata, Oracle": "https://192.0.0.192/",
    "protocol assignments": "https://192.0.0.8/",
    "relay of 6to4": "https://192.88.99.1/",
    "documentation": "https://192.0.2.1/",
    "documentation, IPv6": "https://[2001:db8::1]/",
    "documentation, IPv6, new": "https://[3fff::1]/",
    "benchmarks": "https://198.18.0.1/",
    "multicast": "https://224.0.0.1/",
    "multicast, IPv6": "https://[ff02::1]/",
    "multicast, global": "https://233.252.0.1/",
    "reserved": "https://240.0.0.1/",
    "broadcast": "https://255.255.255.255/",
    "discard only": "https://[100::1]/",
    "a segment's identifier": "https://[5f00::1]/",
}


@pytest.mark.parametrize("url", NUMBERS.values(), ids=NUMBERS.keys())
async def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    assert await reason(ReadingFetcher(SearchSettings(**LIMITS)).read(url)) is Reason.ADDRESS


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0"],
)
async def test_this_machine_is_not_even_connected_to(network: Network, host: str) -> None:
    async with network.serving(fixed_reply(OK)) as server:
        fetcher = network.strict(server, resolve_host, url_allow=f"{host}:{server.port}")
        assert await reason(fetcher.read(f"https://{host}:{server.port}/")) is Reason.ADDRESS
        assert server.connections == 0


@pytest.mark.parametrize(
    "addresses", ["10.0.0.1", "8.8.8.8 10.0.0.1", "127.0.0.1 8.8.8.8", "2606:4700::1111 ::1", "169.254.169.254", ""]
)
async def test_a_name_is_refused_in_the_same_words_where_any_address_is_not_public_and_where_it_has_none(
    addresses: str,
) -> None:
    fetcher = ReadingFetcher(SearchSettings(**LIMITS), resolve=resolver(**{HOST: addresses}))
    error = await refusal(fetcher.read(f"https://{HOST}/"))
    assert error.reason is Reason.ADDRESS
    assert str(error) == str(FetchRefused(Reason.ADDRESS, host=HOST))


# Names that change their address between one look and the next.


async def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(network: Network) -> None:
    """Whoever looked it up again would be at an address where nobody is."""
    resolve = FakeResolver(**{HOST: [["127.0.0.1"], ["127.0.0.2"]]})
    async with network.serving(fixed_reply(OK)) as server:
        assert await network.fetcher(server, resolve).read(f"https://{HOST}:{server.port}/") == PICTURE
    assert resolve.lookups == [HOST]


async def test_a_name_that_becomes_private_is_refused_at_the_next_request(network: Network) -> None:
    resolve = FakeResolver(**{HOST: [["127.0.0.1"], ["10.0.0.1"]]})
    async with network.serving(fixed_reply(OK)) as server:
        fetcher = network.fetcher(server, resolve)
        url = f"https://{HOST}:{server.port}/"
        assert await fetcher.read(url) == PICTURE
        assert await reason(fetcher.read(url)) is Reason.ADDRESS
        assert server.connections == 1


async def test_a_name_that_becomes_private_is_refused_at_the_next_redirect(network: Network) -> None:
    resolve = FakeResolver(**{HOST: [["127.0.0.1"], ["127.0.0.1"], ["169.254.169.254"]]})
    async with network.serving(redirects({"/1": "/2", "/2": "/3"})) as server:
        assert await reason(network.fetcher(server, resolve).read(f"https://{HOST}:{server.port}/1")) is Reason.ADDRESS
        assert len(server.requests) == 2


async def test_no_connection_is_kept_after_a_picture(network: Network) -> None:
    async with network.serving(fixed_reply(OK)) as server:
        await network.fetcher(server).read(f"https://{HOST}:{server.port}/")
        await server.client_closed.wait()


# Redirects to what is refused.


@pytest.mark.parametrize(
    ("location", "expected", "value"),
    [
        ("https://169.254.169.254/latest/meta-data/", Reason.DENIED, "port 443 of host 169.254.169.254 "),
        ("https://2852039166/", Reason.DENIED, "port 443 of host 2852039166 "),
        ("//169.254.169.254/", Reason.DENIED, "port 443 of host 169.254.169.254 "),
        ("https://photos.example:22/", Reason.DENIED, "port 22 of host photos.example "),
        ("https://metadata.example:{port}/", Reason.ADDRESS, ""),
        ("https://unknown.example:{port}/", Reason.ADDRESS, ""),
        ("http://photos.example:{port}/", Reason.SCHEME, "https://"),
        ("http://169.254.169.254/", Reason.SCHEME, "https://"),
        ("file:///etc/passwd", Reason.SCHEME, "https://"),
        ("gopher://photos.example:{port}/_GET", Reason.SCHEME, "https://"),
        ("data:image/png;base64,AAAA", Reason.SCHEME, "https://"),
        ("https://photos.example@metadata.example:{port}/", Reason.INVALID_HOST, ""),
        ("https://user:word@photos.example:{port}/", Reason.INVALID_HOST, ""),
        ("https://photos.example\\@metadata.example:{port}/", Reason.INVALID_HOST, ""),
        ("https://photos%2eexample/", Reason.INVALID_HOST, ""),
        ("https://[/", Reason.INVALID_HOST, ""),
        ("https://photos.example:port/", Reason.INVALID_URL, ""),
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(
    network: Network, location: str, expected: Reason, value: str
) -> None:
    locations: dict[str, str] = {}
    async with network.serving(redirects(locations)) as server:
        locations |= {"/1": "/2", "/2": location.format(port=server.port)}
        resolve = resolver(**{"metadata.example": "169.254.169.254"})
        error = await refusal(network.fetcher(server, resolve).read(f"https://{HOST}:{server.port}/1"))
        assert error.reason is expected
        assert value in error.detail
        assert len(server.requests) == 2


async def test_a_redirect_to_the_metadata_is_refused_by_its_address(network: Network) -> None:
    """The allow list does not have to help."""
    locations = {"/": "https://169.254.169.254/latest/meta-data/"}
    async with network.serving(redirects(locations)) as server:
        fetcher = network.strict(
            server,
            resolver(**{"169.254.169.254": "169.254.169.254"}),
            url_allow=f"{HOST}:{server.port}, 169.254.169.254",
            allowed=lambda address, named: address.is_loopback or is_allowed(address, named),
        )
        assert await reason(fetcher.read(f"https://{HOST}:{server.port}/")) is Reason.ADDRESS


async def test_redirects_end(network: Network) -> None:
    async with network.serving(redirects({f"/{n}": f"/{n + 1}" for n in range(9)})) as server:
        assert await reason(network.fetcher(server).read(f"https://{HOST}:{server.port}/0")) is Reason.REDIRECTS
        assert len(server.requests) == 4
        assert await network.fetcher(server).read(f"https://{HOST}:{server.port}/6") == PICTURE


async def test_a_redirect_that_is_not_utf8_is_followed_to_where_nothing_is(network: Network) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\nContent-Length: 0\r\n\r\n"
    assert await reason(network.get(fixed_reply(moved))) is Reason.REDIRECTS


# URLs that are refused as they are.


@pytest.mark.parametrize(
    ("url", "expected", "value"),
    [
        ("http://photos.example/", Reason.SCHEME, "https://"),
        ("file:///etc/passwd", Reason.SCHEME, "https://"),
        ("file://localhost/etc/passwd", Reason.SCHEME, "https://"),
        ("gopher://photos.example:70/_", Reason.SCHEME, "https://"),
        ("ftp://photos.example/", Reason.SCHEME, "https://"),
        ("dict://photos.example:11211/stat", Reason.SCHEME, "https://"),
        ("ldap://photos.example/", Reason.SCHEME, "https://"),
        ("jar:https://photos.example!/", Reason.SCHEME, "https://"),
        ("data:image/png;base64,AAAA", Reason.SCHEME, "https://"),
        ("photos.example/a.png", Reason.SCHEME, "https://"),
        ("//photos.example/a.png", Reason.SCHEME, "https://"),
        ("", Reason.SCHEME, "https://"),
        ("https://user@photos.example/", Reason.INVALID_HOST, ""),
        ("https://user:word@photos.example/", Reason.INVALID_HOST, ""),
        ("https://photos.example@169.254.169.254/", Reason.INVALID_HOST, ""),
        ("https://photos.example:443@169.254.169.254/", Reason.INVALID_HOST, ""),
        ("https://photos.example\\@169.254.169.254/", Reason.INVALID_HOST, ""),
        ("https://a@b@photos.example/", Reason.INVALID_HOST, ""),
        ("https://:@photos.example/", Reason.INVALID_HOST, ""),
        ("https://", Reason.INVALID_HOST, ""),
        ("https:///a.png", Reason.INVALID_HOST, ""),
        ("https:photos.example", Reason.INVALID_HOST, ""),
        ("https://127.0.0.1%2f.photos.example/", Reason.INVALID_HOST, ""),
        ("https://photos%2eexample/", Reason.INVALID_HOST, ""),
        ("https://photos.example%00.evil.example/", Reason.INVALID_HOST, ""),
        ("https://photos example/", Reason.INVALID_HOST, ""),
        ("https://photos.example\\evil.example/", Reason.INVALID_HOST, ""),
        ("https://photos.example./", Reason.INVALID_HOST, ""),
        ("https://photos..example/", Reason.INVALID_HOST, ""),
        ("https://.photos.example/", Reason.INVALID_HOST, ""),
        ("https://-photos.example/", Reason.INVALID_HOST, ""),
        ("https://photos-.example/", Reason.INVALID_HOST, ""),
        (f"https://{'a' * 64}.example/", Reason.INVALID_HOST, ""),
        (f"https://{'a.' * 127}/", Reason.INVALID_HOST, ""),
        (f"https://{'a.' * 126}aa/", Reason.INVALID_HOST, ""),
        (f"https://{'a.' * 126}a/", Reason.ADDRESS, ""),
        (f"https://{'a' * 63}.example/", Reason.ADDRESS, ""),
        ("https://[fe80::1%25eth0]/", Reason.INVALID_HOST, ""),
        ("https://[::1/", Reason.INVALID_URL, ""),
        ("https://[127.0.0.1]/", Reason.INVALID_URL, ""),
        ("https://::1/", Reason.INVALID_URL, ""),
        ("https://photos.example\r\nX: y/", Reason.INVALID_URL, ""),
        ("https://photos.example/\x00", Reason.INVALID_URL, ""),
        ("https://127.0.0.01/", Reason.INVALID_URL, ""),
        ("https://256.256.256.256/", Reason.INVALID_URL, ""),
        ("https://①②⑦.⓪.⓪.①/", Reason.INVALID_URL, ""),
        ("https://photos.example:https/", Reason.INVALID_URL, ""),
        ("https://photos.example/" + "a" * 70_000, Reason.INVALID_URL, ""),
        ("https://photos.example:22/", Reason.DENIED, "port 22 of host photos.example "),
        ("https://photos.example:6379/", Reason.DENIED, "port 6379 of host photos.example "),
        ("https://photos.example:8443/", Reason.DENIED, "port 8443 of host photos.example "),
        ("https://photos.example:0/", Reason.DENIED, "port 0 of host photos.example "),
        ("https://photos.example:-1/", Reason.DENIED, "port -1 of host photos.example "),
        ("https://photos.example:65979/", Reason.DENIED, "port 65979 of host photos.example "),
        ("https://no-such-name.example/", Reason.ADDRESS, ""),
    ],
)
async def test_an_invalid_url_is_refused_before_any_name_is_looked_up(url: str, expected: Reason, value: str) -> None:
    resolve = resolver()
    error = await refusal(ReadingFetcher(SearchSettings(**LIMITS), resolve=resolve).read(url))
    assert error.reason is expected
    assert value in error.detail
    assert expected is Reason.ADDRESS or not resolve.lookups


# The lists.


@pytest.mark.parametrize(
    ("allow", "deny", "host", "allowed"),
    [
        ("", "", "a.example", True),
        ("a.example", "", "a.example", True),
        ("A.Example ,", "", "a.example", True),
        ("b.example, a.example", "", "A.EXAMPLE", True),
        ("a.example:443", "", "a.example", True),
        ("a.example:8443", "", "a.example:8443", True),
        ("a.example", "", "a.example:80", True),
        ("*.example", "", "a.example", True),
        ("*.example", "", "b.a.example", True),
        ("8.8.8.8", "", "8.8.8.8", True),
        ("[2606:4700:0::1]", "", "[2606:4700::1]", True),
        ("", "b.example", "a.example", True),
        ("", "*.a.example", "a.example", True),
        ("", "a.example:80", "a.example", True),
        ("b.example", "", "a.example", False),
        ("a.example", "", "b.a.example", False),
        ("a.example", "", "aa.example", False),
        ("*.a.example", "", "a.example", False),
        ("*.a.example", "", "ba.example", False),
        ("*.a.example", "", "a.example.evil.example", False),
        ("a.example", "", "a.example.evil.example", False),
        ("a.example:8443", "", "a.example", False),
        ("a.example", "", "a.example:8443", False),
        ("8.8.8.8", "", "134744072", False),
        ("", "a.example", "a.example", False),
        ("", "a.example", "A.example", False),
        ("", "*.example", "a.example", False),
        ("", "a.example:443", "a.example", False),
        ("a.example", "a.example", "a.example", False),
        ("*.example", "a.example", "a.example", False),
        ("", "8.8.8.8", "8.8.8.8", False),
    ],
)
async def test_the_lists_say_whose_name_is_looked_up(allow: str, deny: str, host: str, allowed: bool) -> None:
    resolve = resolver()
    outcome = await reason(
        ReadingFetcher(SearchSettings(url_allow=allow, url_deny=deny), resolve=resolve).read(f"https://{host}/")
    )
    assert bool(resolve.lookups) == allowed
    assert outcome is (Reason.ADDRESS if allowed else Reason.DENIED)


@pytest.mark.parametrize("host", ["134744072", "0x08080808", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]", HOST])
async def test_a_denied_address_is_refused_however_the_url_comes_to_it(host: str) -> None:
    class KnownHostResolver(FakeResolver):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            return ["8.8.8.8"] if host == HOST else await resolve_host(host, port)

    fetcher = ReadingFetcher(SearchSettings(url_deny="1.1.1.1, 8.8.8.8"), resolve=KnownHostResolver())
    assert await reason(fetcher.read(f"https://{host}/")) is Reason.ADDRESS


@pytest.mark.parametrize(
    ("allow", "named"),
    [
        ("photos.example:{port}", True),
        ("*.example:{port}, photos.example:{port}", True),
        ("*.example:{port}", False),
        ("*.example:{port}, photos.example", False),
        ("*.example:{port}, photos.example:8443", False),
        ("*.example:{port}, other.example:{port}", False),
    ],
)
async def test_only_a_host_that_is_named_itself_at_this_port_may_be_private(
    network: Network, allow: str, named: bool
) -> None:
    async with network.serving(fixed_reply(OK)) as server:
        fetcher = network.strict(
            server, resolver(), url_allow=allow.format(port=server.port), allowed=lambda address, named: named
        )
        fetching = fetcher.read(f"https://{HOST}:{server.port}/")
        if named:
            assert await fetching == PICTURE
        else:
            assert await reason(fetching) is Reason.ADDRESS


@pytest.mark.parametrize(
    "settings",
    [
        {"url_allow": "https://photos.example"},
        {"url_allow": "photos.example/a"},
        {"url_allow": "photos.example?"},
        {"url_allow": "photos.example#"},
        {"url_allow": "*"},
        {"url_allow": "*.*.example"},
        {"url_allow": "photos.*"},
        {"url_allow": "user@photos.example"},
        {"url_allow": "photos.example:https"},
        {"url_deny": "::1"},
        {"url_deny": "a.example b.example"},
        {"url_deny": "[fe80::1%eth0"},
    ],
)
def test_settings_that_cannot_be_read_are_named_at_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"IMGSEARCH_SEARCH_{next(iter(settings)).upper()}"):
        ReadingFetcher(SearchSettings(**settings))


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


async def test_a_resolver_that_does_not_answer_is_left() -> None:
    async def wait_forever(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    fetcher = ReadingFetcher(SearchSettings(**SHORT_TIME), resolve=wait_forever)
    assert await reason(fetcher.read(f"https://{HOST}/")) is Reason.TIMEOUT


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


async def test_only_so_many_are_fetched_or_in_use_at_a_time(network: Network) -> None:
    """They wait before their host is looked up, and their time has not begun."""
    resolve = resolver()
    requested, all_in_use, may_finish = asyncio.Event(), asyncio.Event(), asyncio.Event()
    use_count = 0

    async def response(_: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == MAX_FETCHES:
            requested.set()
        await requested.wait()
        writer.write(OK)

    async def use(fetcher: Fetcher, url: str) -> None:
        nonlocal use_count
        async with fetcher.get(url) as data:
            assert data == PICTURE
            use_count += 1
            if use_count == MAX_FETCHES:
                all_in_use.set()
            await may_finish.wait()

    async with network.serving(response) as server:
        fetcher = network.fetcher(server, resolve)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(MAX_FETCHES + 4):
                tasks.create_task(use(fetcher, f"https://{HOST}:{server.port}/"))
            await all_in_use.wait()
            for _ in range(100):
                await asyncio.sleep(0)  # the others, if they could
            assert len(resolve.lookups) == MAX_FETCHES
            may_finish.set()
        assert use_count == len(resolve.lookups) == MAX_FETCHES + 4


async def test_what_is_refused_leaves_its_place_to_others(network: Network) -> None:
    async with network.serving(fixed_reply(OK)) as server:
        fetcher = network.fetcher(server)
        for _ in range(MAX_FETCHES):
            assert await reason(fetcher.read(f"https://none.example:{server.port}/")) is Reason.ADDRESS
        assert await fetcher.read(f"https://{HOST}:{server.port}/") == PICTURE
