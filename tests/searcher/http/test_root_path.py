"""The root path of the setting: with and without it in the path of the request, and which ones are refused."""

from __future__ import annotations

import httpx
import pytest

from imgsearch.errors import UsageError
from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, hashed, picture, problem

pytestmark = pytest.mark.anyio

RED = {"text": "red", "k": 1}
NEAREST = {"text": "red", "num_images": 1}
ORIGINAL = f"/v1/images/{image_id('red.png')}"


@pytest.mark.parametrize("setting", ["/photos", "/photos/", " /photos "])
async def test_a_request_is_answered_with_the_root_path_and_without(gallery: Library, setting: str) -> None:
    async with gallery.serving(root_path=setting) as client:
        for path in (ORIGINAL, f"/photos{ORIGINAL}"):
            assert (await client.get(path)).content == picture("red")
            (result,) = (await client.post(path.replace(ORIGINAL, "/knn-service"), json=NEAREST)).json()
            assert httpx.URL(result["url"]).path == f"/photos{ORIGINAL}"
        assert "see /photos/docs" in problem(await client.get("/photos/nothing"), 404)
        for path in (f"/photo{ORIGINAL}", f"/photosx{ORIGINAL}", f"/photos/photos{ORIGINAL}", "/photosv1/indexes"):
            problem(await client.get(path), 404)


@pytest.mark.parametrize("path", ["/photos", "/photos/docs/"])
async def test_a_redirect_stays_below_the_root_path(gallery: Library, path: str) -> None:
    async with gallery.serving(root_path="/photos", api_keys=hashed("key")) as client:
        response = await client.get(path, headers={"Authorization": "Bearer key"})
        target = {"/photos": "/photos/", "/photos/docs/": "/photos/docs"}[path]
        assert (response.status_code, httpx.URL(response.headers["location"]).path) == (307, target)


async def test_keys_and_limits_hold_below_the_root_path(gallery: Library) -> None:
    async with gallery.serving(root_path="/photos", api_keys=hashed("key"), rate_limit="1/year") as client:
        for prefix in ("", "/photos"):
            problem(await client.get(prefix + ORIGINAL), 401)
            problem(await client.get(f"{prefix}/docs"), 401)
            for path in ("/", "/page/main.js", "/healthz", "/metrics", "/health"):
                assert (await client.get(prefix + path)).status_code == 200
        login = await client.post("/photos/v1/login", json={"key": "key"})
        assert login.status_code == 204
        assert "Path=/photos/;" in login.headers["set-cookie"]
        assert (await client.post("/photos/v1/search", json=RED)).status_code == 200
        problem(await client.post("/photos/v1/search", json=RED), 429)


async def test_the_setting_takes_precedence_over_the_header(gallery: Library) -> None:
    async with gallery.serving(root_path="/photos", trusted_proxies="127.0.0.1") as client:
        document = (await client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/other"})).json()
        assert document["servers"] == [{"url": "/photos"}]


@pytest.mark.parametrize("path", ["photos", "//photos", "/a//b", "/..", "/a/./b", "/a b", "/ä", "/a?b", "http://a/b"])
def test_an_invalid_root_path_is_one_clear_sentence(library: Library, path: str) -> None:
    with pytest.raises(
        UsageError, match=r"IMGSEARCH_SEARCH_ROOT_PATH: invalid root path .*; write a path such as /photos"
    ):
        library.app(root_path=path)


@pytest.mark.parametrize("path", ["/v1", "/v1/images", "/docs", "/page", "/image", "/clip", "/search", "/healthz"])
def test_a_root_path_that_is_a_route_is_refused(library: Library, path: str) -> None:
    with pytest.raises(UsageError, match=f"IMGSEARCH_SEARCH_ROOT_PATH: {path} is also"):
        library.app(root_path=path)
