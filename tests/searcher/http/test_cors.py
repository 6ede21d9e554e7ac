"""CORS: pages of the allowed origins may use the API, and no others."""

from __future__ import annotations

import re

import pytest

from imgsearch.errors import UsageError
from tests.searcher.library import Library, hashed

pytestmark = pytest.mark.anyio

RED = {"text": "red", "k": 1}
ORIGIN = "https://photos.example.com"


async def test_a_page_of_the_origins_may_use_the_api_whatever_it_is_answered(gallery: Library) -> None:
    limits = {"api_keys": hashed("key"), "rate_limit": "1/year", "max_body_bytes": 200}
    async with gallery.serving(cors_origins=f"https://other.example.com, {ORIGIN}", **limits) as client:
        preflight_headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        request_headers = "authorization,content-type,if-none-match,range,x-request-id"
        preflight = await client.options(
            "/v1/search", headers={**preflight_headers, "Access-Control-Request-Headers": request_headers}
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        client.headers["Origin"] = ORIGIN
        key_header = {"Authorization": "Bearer key"}
        for status, response in {
            401: await client.post("/v1/search", json=RED),
            413: await client.post("/v1/search", content=b" " * 201, headers=key_header),
            429: await client.post("/v1/search", json=RED, headers=key_header),
            404: await client.get("/nowhere", headers=key_header),
            200: await client.get("/v1/indexes", headers=key_header),
        }.items():
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == ORIGIN
            assert "X-Request-ID" in response.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in response.headers
            assert "Origin" in response.headers["vary"]


async def test_no_other_page_may_use_it(gallery: Library) -> None:
    headers = {"Origin": "https://evil.example.com"}
    async with gallery.serving(cors_origins=ORIGIN) as client:
        assert "access-control-allow-origin" not in (await client.get("/v1/indexes", headers=headers)).headers
        preflight_headers = {**headers, "Access-Control-Request-Method": "POST"}
        assert (await client.options("/v1/search", headers=preflight_headers)).status_code == 400
    async with gallery.serving() as client:
        assert "access-control-allow-origin" not in (await client.get("/v1/indexes", headers=headers)).headers
    async with gallery.serving(cors_origins="*") as client:
        response = await client.get("/v1/indexes", headers=headers)
        assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origins", ["photos.example.com", f"{ORIGIN}/", f"{ORIGIN}/search", "https://*", "ftp://a", f"{ORIGIN}, x", "null"]
)
def test_what_is_no_origin_is_one_clear_sentence(library: Library, origins: str) -> None:
    value = repr(origins.split(", ")[-1])
    with pytest.raises(UsageError, match=f"IMGSEARCH_SEARCH_CORS_ORIGINS: .*{re.escape(value)}"):
        library.app(cors_origins=origins)
