"""No URL, name or redirect reaches an address that is not public."""

from __future__ import annotations

import pytest

from imgsearch.settings import SearchSettings
from searcher.content.fetcher import resolve_host
from searcher.content.url_rules import FetchRefused, Reason, is_allowed
from tests.searcher.content.web import (
    HOST,
    LIMITS,
    OK,
    PICTURE,
    FakeResolver,
    Network,
    ReadingFetcher,
    fixed_reply,
    reason,
    redirects,
    refusal,
    resolver,
)

pytestmark = pytest.mark.anyio

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
