"""The searcher below a sub-path of a real nginx: every route, link and server of the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from imgsearch.client import Client
from imgsearch.runs.layout import image_id
from tests.nginx import CLEAR, KEEP, PREFIX, REMOVE, nginx
from tests.searcher.library import picture
from tests.searcher.process import SearcherProcess, wait_for_text

RED = image_id("red.png")
ROUTES: dict[str, tuple[str, str, Any, int]] = {
    "/v1/search": ("POST", "/v1/search", {"text": "red", "k": 2}, 200),
    "/v1/search/batch": ("POST", "/v1/search/batch", {"searches": [{"text": "red"}]}, 200),
    "/v1/search/image": ("POST", "/v1/search/image", {}, 422),
    "/v1/embed": ("POST", "/v1/embed", {"text": ["red"]}, 200),
    "/v1/images/{id}": ("GET", f"/v1/images/{RED}?index=photos", None, 200),
    "/v1/images/{id}/thumbnail": ("GET", f"/v1/images/{RED}/thumbnail", None, 200),
    "/v1/facets": ("GET", "/v1/facets", None, 404),  # the run has none
    "/v1/map": ("GET", "/v1/map", None, 404),
    "/v1/map/sprite": ("GET", "/v1/map/sprite", None, 404),
    "/v1/indexes": ("GET", "/v1/indexes", None, 200),
    "/search": ("POST", "/search", {"text": "red"}, 200),
    "/image/{path}": ("GET", "/image/red.png", None, 200),
    "/health": ("GET", "/health", None, 200),
    "/clip/embed_text": ("POST", "/clip/embed_text", {"text": "red"}, 200),
    "/clip/embed_image": ("POST", "/clip/embed_image", {}, 422),
    "/clip/compare": ("POST", "/clip/compare", {}, 422),
    "/knn-service": ("POST", "/knn-service", {"text": "red"}, 200),
    "/indices-list": ("GET", "/indices-list", None, 200),
}
"""A request for each path of the OpenAPI document: method, path, JSON body and status."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A searcher that reads the sub-path from the header of its proxy."""
    with SearcherProcess(tmp_path_factory.mktemp("searcher"), trusted_proxies="127.0.0.0/8") as server:
        server.finish()
        wait_for_text(server.url, "/readyz", "ready")
        yield server.url


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A searcher with the sub-path as a setting."""
    with SearcherProcess(tmp_path_factory.mktemp("searcher"), root_path=PREFIX) as server:
        server.finish()
        wait_for_text(server.url, "/readyz", "ready")
        yield server.url


@pytest.fixture(scope="module", params=[("told", REMOVE), ("configured", KEEP), ("configured", REMOVE)])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of the searcher behind nginx, and its own URL."""
    searcher, path = request.param
    upstream = request.getfixturevalue(searcher)
    with nginx(tmp_path_factory.mktemp("nginx") / "nginx", upstream, path) as url:
        yield url, upstream


@pytest.fixture
def url(proxied: tuple[str, str]) -> str:
    return proxied[0]


def test_every_route_answers_as_without_the_proxy(proxied: tuple[str, str]) -> None:
    url, upstream = proxied
    assert set(httpx.get(f"{upstream}/openapi.json").json()["paths"]) == set(ROUTES)
    for method, path, body, status in ROUTES.values():
        proxied_response, response = (httpx.request(method, base + path, json=body) for base in (url, upstream))
        assert (path, proxied_response.status_code, response.status_code) == (path, status, status)
        if method == "GET" and status == 200:
            assert proxied_response.content == response.content
    for path in ("/healthz", "/readyz", "/metrics", "/", "/docs", "/page/main.js"):
        assert httpx.get(url + path).status_code == 200
    assert httpx.get(url.removesuffix(PREFIX) + "/v1/indexes").status_code == 418


def test_paths_of_results_are_below_the_url_of_the_server(url: str) -> None:
    (result,) = httpx.post(f"{url}/v1/search", json={"text": "red", "k": 1}).json()["results"]
    assert httpx.get(url + result["image"]).content == picture("red")
    assert httpx.get(url + result["thumbnail"]).headers["content-type"] == "image/webp"
    with Client(url) as client:
        (result,) = client.search("red", k=1)
        assert client.image(result) == picture("red")
        assert client.thumbnail(result) == httpx.get(url + result.thumbnail).content


def test_links_of_clip_retrieval_open(url: str) -> None:
    (result,) = httpx.post(f"{url}/knn-service", json={"text": "red", "num_images": 1}).json()
    assert result["url"].startswith(f"{url}/v1/images/")
    assert httpx.get(result["url"]).content == picture("red")


def test_requests_of_the_reference_go_to_the_server_below_the_path(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["servers"] == [{"url": PREFIX}]
    server = urljoin(f"{url}/openapi.json", document["servers"][0]["url"])
    assert httpx.post(f"{server}/v1/search", json={"text": "red", "k": 1}).status_code == 200


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_every_file_of_a_page_loads(url: str, page: str) -> None:
    links = re.findall(r'(?:src|href)="([^"#]+)"', httpx.get(url + page).text)
    files = [urljoin(url + page, link) for link in links if not link.startswith("data:")]
    assert len(files) >= 3
    for file in files:
        assert file.startswith(f"{url}/")
        assert httpx.get(file).status_code == 200


@pytest.mark.parametrize(("path", "target"), [("", "/"), ("/docs/", "/docs"), ("/v1/indexes/", "/v1/indexes")])
def test_a_slash_too_many_or_too_few_stays_below_the_path(url: str, path: str, target: str) -> None:
    response = httpx.get(url + path, follow_redirects=True)
    assert (response.status_code, str(response.url)) == (200, url + target)


def test_a_client_chooses_no_prefix_behind_a_proxy_that_clears_the_header(told: str, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx", told, CLEAR) as url:
        document = httpx.get(f"{url}/openapi.json", headers={"X-Forwarded-Prefix": "/chosen"}).json()
    assert document == httpx.get(f"{told}/openapi.json").json()
    chosen = httpx.get(f"{told}/openapi.json", headers={"X-Forwarded-Prefix": "/chosen"}).json()
    assert chosen["servers"] == [{"url": "/chosen"}]  # what nginx would pass on
