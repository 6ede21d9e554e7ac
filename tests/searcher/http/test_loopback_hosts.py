"""DNS rebinding: without API keys, a request to a loopback address names a host of this machine, or is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from imgsearch.errors import UsageError
from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, hashed, picture, problem
from tests.searcher.process import SearcherProcess, wait_for_text

pytestmark = pytest.mark.anyio

ORIGINAL = f"/v1/images/{image_id('red.png')}"
SEARCH = {"text": "red", "k": 1}

OF_THIS_MACHINE = [
    "localhost",
    "localhost:8000",
    "LOCALHOST:8000",
    "localhost.",
    "localhost.:8000",
    "photos.localhost:8000",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.0.0.1:",
    "127.8.9.10:1",
    "[::1]",
    "[::1]:8000",
    "[0:0:0:0:0:0:0:1]:8000",
    "[::ffff:127.0.0.1]:8000",
    "0.0.0.0:8000",
    "[::]:8000",
]
OF_OTHERS = [
    "evil.example",
    "evil.example:8000",
    "EVIL.EXAMPLE.",
    "localhost.evil.example",
    "evillocalhost",
    "localhost..",
    "localhost:8000.evil.example",
    "localhost:8000:8000",
    "localhost@evil.example",
    "127.0.0.1.nip.io",
    "127.0.0.1.evil.example:8000",
    "127.0.0.1, evil.example",
    "192.0.2.1:8000",
    "[2001:db8::1]:8000",
    "[::1].evil.example",
    "[::1",
    "::1",
    "[127.0.0.1.evil.example]",
    "",
    ":8000",
    "ev\xefl.example",
    "e" * 5000,
]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "[::1]", "[::ffff:127.0.0.1]"])
async def test_on_loopback_only_hosts_of_this_machine_are_answered(gallery: Library, address: str) -> None:
    async with gallery.serving() as client:
        client.base_url = f"http://{address}:8000"  # type: ignore[assignment]
        for host in OF_THIS_MACHINE:
            response = await client.get(ORIGINAL, headers={"Host": host})
            assert (host, response.status_code, response.content) == (host, 200, picture("red"))
        for host in OF_OTHERS:
            headers = [(b"Host", host.encode("latin-1"))]
            for path in [ORIGINAL, f"{ORIGINAL}/thumbnail", "/v1/indexes", "/", "/docs", "/metrics", "/nothing"]:
                response = await client.get(path, headers=headers)
                assert "search.allowed_hosts" in problem(response, 421), host
                assert len(response.content) < 1000
            for path in ["/v1/search", "/v1/embed", "/search", "/knn-service"]:
                problem(await client.post(path, json=SEARCH, headers=headers), 421)


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "Forwarded", "X-Host", "X-Original-Host"])
async def test_no_other_header_replaces_the_host(gallery: Library, name: str) -> None:
    async with gallery.serving(trusted_proxies="127.0.0.1") as client:
        client.base_url = "http://127.0.0.1:8000"  # type: ignore[assignment]
        value = "host=localhost" if name == "Forwarded" else "localhost"
        problem(await client.get(ORIGINAL, headers={"Host": "evil.example", name: value}), 421)
        assert (await client.get(ORIGINAL, headers={"Host": "localhost", name: "evil.example"})).status_code == 200


@pytest.mark.parametrize("address", ["10.42.0.7", "[fd00::7]", "192.0.2.1"])
async def test_on_other_addresses_every_host_is_answered(gallery: Library, address: str) -> None:
    """The kubelet's probes name the pod's address, clients the Service or the Ingress."""
    async with gallery.serving() as client:
        client.base_url = f"http://{address}:8000"  # type: ignore[assignment]
        for host in [f"{address}:8000", "imgsearch-searcher.photos.svc", "photos.example.com"]:
            for path in ["/healthz", "/readyz", ORIGINAL]:
                assert (await client.get(path, headers={"Host": host})).status_code == 200


async def test_the_hosts_of_the_setting_are_answered(gallery: Library) -> None:
    hosts = " Photos.Example.com., 192.0.2.1,2001:DB8:0::1 ,"
    async with gallery.serving(allowed_hosts=hosts) as client:
        client.base_url = "http://127.0.0.1:8000"  # type: ignore[assignment]
        for host in ["photos.example.com", "PHOTOS.example.com.:443", "192.0.2.1:80", "[2001:db8::1]", "localhost"]:
            assert (await client.get(ORIGINAL, headers={"Host": host})).status_code == 200
        for host in ["example.com", "a.photos.example.com", "photosXexample.com", "192.0.2.10", "[2001:db8::2]"]:
            problem(await client.get(ORIGINAL, headers={"Host": host}), 421)


@pytest.mark.parametrize(
    "hosts", ["http://a.example", "a.example:80", "*", "*.example.com", "a b", "a,,b/", "[::1]:8000", "ä.example"]
)
def test_an_invalid_host_in_the_setting_is_one_clear_sentence(library: Library, hosts: str) -> None:
    with pytest.raises(UsageError, match=r"IMGSEARCH_SEARCH_ALLOWED_HOSTS: invalid host .*; write names"):
        library.app(allowed_hosts=hosts)


async def test_with_api_keys_the_key_decides(gallery: Library) -> None:
    async with gallery.serving(api_keys=hashed("key")) as client:
        client.base_url = "http://127.0.0.1:8000"  # type: ignore[assignment]
        headers = {"Host": "photos.example.com"}
        problem(await client.get(ORIGINAL, headers=headers), 401)
        headers["Authorization"] = "Bearer key"
        assert (await client.get(ORIGINAL, headers=headers)).status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearcherProcess]:
    with SearcherProcess(tmp_path_factory.mktemp("searcher")) as server:
        wait_for_text(server.url, "/readyz", "ready")
        yield server


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        ("HTTP/1.1\r\nHost: localhost:{port}", 200),  # also through `kubectl port-forward`
        ("HTTP/1.0\r\nHost: 127.0.0.1:{port}", 200),
        ("HTTP/1.1\r\nHost: evil.example:{port}", 421),
        ("HTTP/1.0\r\nHost: evil.example:{port}", 421),
        ("HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\nX-Forwarded-For: 127.0.0.1", 421),
        ("HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 421),
        ("HTTP/1.0", 421),
        ("HTTP/1.1", 421),
    ],
)
def test_the_address_of_the_connection_decides_not_a_header(
    server: SearcherProcess, request_head: str, status: int
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"GET {ORIGINAL} {request_head.format(port=port)}\r\nConnection: close\r\n\r\n".encode())
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(response.split()[1]) == status
    assert (picture("red") in response) == (status == 200)
