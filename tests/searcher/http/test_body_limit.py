"""The limit of request bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.searcher.library import Library, hashed, picture, problem

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


async def test_a_body_over_the_limit_is_refused_before_it_is_read(gallery: Library) -> None:
    sent_bytes = 0

    async def endless(first: bytes = b"") -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        yield first
        while True:
            sent_bytes += 1000
            yield b" " * 1000

    async with gallery.serving(max_body_bytes=50_000) as client:
        for path in ("/v1/search", "/v1/embed"):
            problem(await client.post(path, content=endless(), headers=JSON), 413)
            assert sent_bytes < 60_000
            sent_bytes = 0
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        problem(await client.post("/v1/search/image", content=endless(file), headers=form), 413)
        assert sent_bytes < 60_000
        headers = {**JSON, "Content-Length": "50001"}
        response = await client.post("/v1/search", content=b"{}", headers=headers)
        assert "50,000 bytes" in problem(response, 413)
        assert response.headers["connection"] == "close"
        image = {"file": picture("blue"), "padding": b" " * 50_000}
        problem(await client.post("/v1/search/image", files=image), 413)


async def test_a_body_just_at_the_limit_is_taken(gallery: Library) -> None:
    body = json.dumps({"text": "red"}).encode()
    async with gallery.serving(max_body_bytes=len(body)) as client:
        assert (await client.post("/v1/search", content=body, headers=JSON)).status_code == 200
        assert (await client.post("/v1/search", content=body + b" ", headers=JSON)).status_code == 413


async def test_a_login_is_small_because_anybody_may_send_it(gallery: Library) -> None:
    key = "a key"
    async with gallery.serving(api_keys=hashed(key), root_path="/photos") as client:
        for path in ("/v1/login", "/photos/v1/login"):
            for size, status in [(1024, 204), (1025, 413)]:
                body = json.dumps({"key": key}).encode().ljust(size)
                assert (await client.post(path, content=body, headers=JSON)).status_code == status
    async with gallery.serving(api_keys=hashed(key), max_body_bytes=100) as client:
        response = await client.post("/v1/login", content=b" " * 101, headers=JSON)
        assert "100 bytes" in problem(response, 413)
