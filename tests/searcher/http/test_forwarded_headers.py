"""The headers of reverse proxies: from a listed proxy they are used, from everybody else they are ignored."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from imgsearch.errors import UsageError
from tests.searcher.library import Library, problem

pytestmark = pytest.mark.anyio

RED = {"text": "red", "k": 1}
NEAREST = {"text": "red", "num_images": 1}


def from_address(client: httpx.AsyncClient, address: str) -> httpx.AsyncClient:
    """Another client of the same searcher, whose requests come from this address."""
    app: Any = client._transport.app  # type: ignore[attr-defined]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1234)), base_url="http://searcher")


async def statuses(client: httpx.AsyncClient, *forwarded: str) -> list[int]:
    """The statuses of one search for each X-Forwarded-For."""
    return [
        (await client.post("/v1/search", json=RED, headers={"X-Forwarded-For": value})).status_code
        for value in forwarded
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.9", "192.0.2.1"])
async def test_by_default_no_client_chooses_its_address(gallery: Library, address: str) -> None:
    async with gallery.serving(rate_limit="1/year") as ready, from_address(ready, address) as client:
        assert await statuses(client, "192.0.2.10", "192.0.2.11", "127.0.0.1") == [200, 429, 429]


@pytest.mark.parametrize(
    ("proxies", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.0/24, 127.0.0.1", "10.0.0.9"),
        ("10.0.0.0/24", "::ffff:10.0.0.9"),  # the server listens on IPv4 and IPv6
        ("fd00::/8", "fd12::9"),
    ],
)
async def test_a_listed_proxy_names_the_client(gallery: Library, proxies: str, address: str) -> None:
    async with (
        gallery.serving(rate_limit="1/year", trusted_proxies=proxies) as ready,
        from_address(ready, address) as proxy,
        from_address(ready, "10.0.1.9") as other,
    ):
        assert await statuses(proxy, "192.0.2.10", "192.0.2.11", "192.0.2.10") == [200, 200, 429]
        # The proxy appends the address that it sees to the header that the client sent.
        assert await statuses(proxy, "198.51.100.1, 192.0.2.10", "198.51.100.2, 192.0.2.10") == [429, 429]
        assert await statuses(other, "192.0.2.12", "192.0.2.13") == [200, 429]


async def test_a_client_has_one_address_on_a_socket_of_both_families(gallery: Library) -> None:
    async with (
        gallery.serving(rate_limit="1/year") as ready,
        from_address(ready, "192.0.2.1") as one,
        from_address(ready, "::ffff:192.0.2.1") as same,
    ):
        assert await statuses(one, "") + await statuses(same, "") == [200, 429]


@pytest.mark.parametrize(
    ("trusted", "prefix", "url"),
    [
        ("127.0.0.1", "/photos", "https://a.example/photos/v1/images/"),
        ("127.0.0.1", "/photos/", "https://a.example/photos/v1/images/"),
        ("127.0.0.1", "/team-1/photo.search_~", "https://a.example/team-1/photo.search_~/v1/images/"),
        ("127.0.0.1", "/v1", "https://a.example/v1/v1/images/"),
        ("127.0.0.1", "/", "https://a.example/v1/images/"),
        ("127.0.0.1", "", "https://a.example/v1/images/"),
        ("10.0.0.1", "/photos", "http://a.example/v1/images/"),
        ("", "/photos", "http://a.example/v1/images/"),
        ("", "//evil.example", "http://a.example/v1/images/"),
    ],
)
async def test_links_have_the_scheme_and_the_path_of_a_listed_proxy_only(
    gallery: Library, trusted: str, prefix: str, url: str
) -> None:
    headers = {"Host": "a.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": prefix}
    async with gallery.serving(trusted_proxies=trusted) as client:
        (result,) = (await client.post("/knn-service", json=NEAREST, headers=headers)).json()
        assert result["url"].startswith(url)
        servers = (await client.get("/openapi.json", headers=headers)).json().get("servers")
        path = httpx.URL(url).path.removesuffix("/v1/images/")
        assert servers == ([{"url": path}] if path else None)


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "photos",
        "/a//b",
        "/../etc",
        "/a/..",
        "/.",
        "/a?b",
        "/a#b",
        "/a b",
        "/%2e",
        "/a\\b",
        "https://a",
    ],
)
async def test_an_invalid_prefix_is_refused(gallery: Library, prefix: str) -> None:
    async with gallery.serving(trusted_proxies="127.0.0.1") as client:
        sentence = problem(await client.get("/v1/indexes", headers={"X-Forwarded-Prefix": prefix}), 400)
        assert sentence.startswith(f"the proxy sent an invalid X-Forwarded-Prefix: invalid root path {prefix!r}")
        both = [("X-Forwarded-Prefix", "/a"), ("X-Forwarded-Prefix", "/b")]
        problem(await client.get("/v1/indexes", headers=both), 400)


@pytest.mark.parametrize("proxies", ["proxy.example", "*", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "unix:"])
def test_an_invalid_proxy_in_the_setting_is_one_clear_sentence(library: Library, proxies: str) -> None:
    with pytest.raises(UsageError, match=r"IMGSEARCH_SEARCH_TRUSTED_PROXIES: .*write addresses and networks"):
        library.app(trusted_proxies=proxies)
