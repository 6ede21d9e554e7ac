"""Compression: large responses that are not images, with weak ETags."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest

from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, picture
from tests.searcher.process import SearcherProcess, wait_for_text

pytestmark = pytest.mark.anyio

IMAGE = f"/v1/images/{image_id('red.png')}"


def raw(client: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it came over the wire."""
    with client.stream("GET", path, headers={"Accept-Encoding": "gzip", **headers}) as response:
        return response, b"".join(response.iter_raw())


def test_what_is_large_and_no_picture_is_compressed_and_has_a_weak_etag(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        server.finish()
        wait_for_text(server.url, "/readyz", "ready")
        for _ in range(2):  # the second is as good as the first
            for path in ("/openapi.json", "/", "/page/page.css", "/docs/swagger-ui.css"):
                response, body = raw(client, path)
                assert response.headers["content-encoding"] == "gzip", path
                assert "Accept-Encoding" in response.headers["vary"]
                uncompressed = client.get(path, headers={"Accept-Encoding": "identity"})
                assert "content-encoding" not in uncompressed.headers
                assert "Accept-Encoding" in uncompressed.headers["vary"]
                assert gzip.decompress(body) == uncompressed.content
                assert response.headers.get("etag", "W/").startswith("W/")
        etag = client.get("/page/page.css").headers["etag"]
        assert client.get("/page/page.css", headers={"If-None-Match": etag}).status_code == 304
        response, body = raw(client, "/healthz")
        assert "content-encoding" not in response.headers
        for path in (IMAGE, f"{IMAGE}/thumbnail"):
            response, body = raw(client, path)
            assert "content-encoding" not in response.headers
            assert not response.headers["etag"].startswith("W/")


async def test_a_picture_of_an_unusual_kind_is_not_compressed(gallery: Library) -> None:
    """Its ETag is strong, and its ranges are those of the file."""
    data = picture("red", format="BMP", size=(64, 64))
    gallery.sources["/data/photos"].replace("red.png", data)
    async with gallery.serving() as client:
        response = await client.get(IMAGE, headers={"Accept-Encoding": "gzip"})
        assert response.headers["content-type"] == "image/bmp"
        assert "content-encoding" not in response.headers
        assert response.content == data
