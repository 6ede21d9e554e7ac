"""Searches by the URL of an image share the searcher's fetches, whoever asks for more of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.searcher.content.web import WebServer
from tests.searcher.library import TIMEOUT, Library, hashed, picture, problem
from tests.searcher.process import SearcherProcess, wait_for_text

pytestmark = pytest.mark.anyio

IMAGE = picture("red")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(IMAGE), IMAGE)
KEYS = hashed("key a", name="a") + "," + hashed("key b", name="b")


class Web:
    """A web server whose images below /slow arrive when the test says so; it counts requests by their path."""

    def __init__(self) -> None:
        self.server = WebServer(self._reply)
        self.released = asyncio.Event()
        self.fetched: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self._running = 0
        self.most_running = 0
        """The most requests at a time."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"

    async def wait_for(self, path: str, count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while self.fetched[path] < count:
                self.changed.clear()
                await self.changed.wait()

    async def _reply(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        path = request.split()[1].decode()
        self.fetched[path] += 1
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        self.changed.set()
        if path.startswith("/slow"):
            await self.released.wait()
        self._running -= 1
        writer.write(OK)


@asynccontextmanager
async def searching(tmp_path: Path, **limits: float | str) -> AsyncIterator[tuple[Web, httpx.AsyncClient]]:
    """A web server, and a client of a searcher in a process of its own that may fetch from it."""
    web = Web()
    async with web.server.running(None):
        settings = {"url_schemes": "http", "url_allow": f"127.0.0.1:{web.server.port}", "api_keys": KEYS, **limits}
        with SearcherProcess(tmp_path, **settings) as server:
            server.finish()
            await asyncio.to_thread(wait_for_text, server.url, "/readyz", "ready")
            async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT) as client:
                yield web, client


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key {key}"}


async def test_a_batch_of_urls_leaves_places_to_other_clients(tmp_path: Path) -> None:
    async with searching(tmp_path, url_seconds=3600) as (web, client):
        searches = [{"image_url": web.url("/slow"), "k": 1}] * 64
        batch = asyncio.create_task(client.post("/v1/search/batch", json={"searches": searches}, headers=by("a")))
        await web.wait_for("/slow", 4)
        response = await client.post("/v1/search", json={"image_url": web.url("/b"), "k": 1}, headers=by("b"))
        assert response.json()["results"][0]["metadata"] == {"colour": "red"}
        assert web.fetched == {"/slow": 4, "/b": 1}
        # No more of the same client, in whatever request; another client has its own.
        response = await client.post("/v1/search", json={"image_url": web.url("/a"), "k": 1}, headers=by("a"))
        assert "64 images of this client" in problem(response, 429)
        assert response.headers["retry-after"] == "2"
        web.released.set()
        responses = (await batch).json()["responses"]
        assert [result["metadata"]["colour"] for item in responses for result in item["results"]] == ["red"] * 64
        assert web.fetched == {"/slow": 64, "/b": 1}
        assert web.most_running == 5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search/batch", lambda url: {"searches": [{"parts": [{"image_url": url}] * 16}] * 64}),
        ("/v1/search", lambda url: {"parts": [{"image_url": url}] * 9}),
        ("/clip/embed_image", lambda url: {"image": [{"type": "url", "value": url}] * 9}),
        (
            "/clip/compare",
            lambda url: {
                "subject": {"type": "url", "value": url},
                "prompt": [{"type": "url", "value": url}] * 8,
                "prompt_type": "image",
            },
        ),
    ],
)
async def test_a_request_names_only_so_many_urls(
    gallery: Library, path: str, body: Callable[[str], dict[str, Any]]
) -> None:
    gallery.address_check = lambda address, listed: address.is_loopback
    web = Web()
    async with (
        web.server.running(None),
        gallery.serving(max_urls=8, url_schemes="http", url_allow=f"127.0.0.1:{web.server.port}") as client,
    ):
        response = await client.post(path, json=body(web.url("/a")))
        assert "at most 8 in one request" in problem(response, 422)
        assert web.fetched["/a"] == 0


async def test_the_time_in_the_queue_is_inside_the_deadline(tmp_path: Path) -> None:
    async with searching(tmp_path, url_seconds=1.0, url_fetches=1) as (web, client):
        searches = [{"image_url": web.url("/slow"), "k": 1}] * 3
        response = await client.post("/v1/search/batch", json={"searches": searches}, headers=by("a"))
        problems = [item["problem"] for item in response.json()["responses"]]
        assert sorted(item["status"] for item in problems) == [422, 429, 429]
        assert web.fetched["/slow"] < 3  # each with a second of its own would be 3, one after the other
        response = await client.post("/v1/search", json={"image_url": web.url("/b"), "k": 1}, headers=by("a"))
        assert response.status_code == 200
