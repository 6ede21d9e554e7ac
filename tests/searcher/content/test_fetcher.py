"""A picture is fetched from the public internet, and only so many at a time."""

from __future__ import annotations

import asyncio

import pytest

from searcher.content.fetcher import MAX_FETCHES, Fetcher, resolve_host
from searcher.content.url_rules import Reason
from tests.searcher.content.web import (
    HOST,
    OK,
    PICTURE,
    Network,
    fixed_reply,
    reason,
    redirects,
    resolver,
)

pytestmark = pytest.mark.anyio


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


def test_the_systems_resolver_is_asked_and_an_unknown_name_has_no_address() -> None:
    assert "127.0.0.1" in resolve_host("localhost", 443)
    assert resolve_host("no-such-name.invalid", 443) == []


async def test_only_so_many_are_fetched_or_in_use_at_a_time(network: Network) -> None:
    """They wait before their host is looked up."""
    resolve = resolver()
    requested, all_in_use, may_finish = asyncio.Event(), asyncio.Event(), asyncio.Event()
    use_count = 0

    async def response(_: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == MAX_FETCHES:
            requested.set()
        await requested.wait()
        writer.write(OK)

    async def use(fetcher: Fetcher, url: str, client: str) -> None:
        nonlocal use_count
        async with fetcher.get(url, client) as data:
            assert data == PICTURE
            use_count += 1
            if use_count == MAX_FETCHES:
                all_in_use.set()
            await may_finish.wait()

    async with network.serving(response) as server:
        fetcher = network.fetcher(server, resolve)
        async with asyncio.TaskGroup() as tasks:
            for number in range(MAX_FETCHES + 4):
                tasks.create_task(use(fetcher, f"https://{HOST}:{server.port}/", f"client {number % 5}"))
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
