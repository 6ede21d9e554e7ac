"""The rate limit: whom it counts, what it counts, and what it tells."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from imgsearch.errors import UsageError
from tests.searcher.library import Library, hashed, problem, uploads
from tests.searcher.process import SearcherProcess, wait_for_text

pytestmark = pytest.mark.anyio

RED = {"text": "red", "k": 1}
JSON = {"Content-Type": "application/json"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_more_than_the_rate_is_refused_and_told_when_to_come_again(gallery: Library) -> None:
    async with gallery.serving(rate_limit="2/year") as client:
        first = await client.post("/v1/search", json=RED)
        assert first.headers["ratelimit-policy"] == '"search";q=2;w=31104000'
        assert re.fullmatch(r'"search";r=1;t=\d+', first.headers["ratelimit"])
        assert (await client.post("/v1/search", json=RED)).status_code == 200
        response = await client.post("/v1/search", json=RED)
        assert "2 per 1 year" in problem(response, 429)
        assert re.fullmatch(r'"search";r=0;t=\d+', response.headers["ratelimit"])
        assert int(response.headers["retry-after"]) >= 1


IMAGE = {"type": "base64", "value": uploads("red")[0]}


@pytest.mark.parametrize(
    ("path", "body", "queries"),
    [
        ("/v1/search", RED, 1),
        ("/v1/search", {"parts": [{"text": "red"}, {"text": "blue"}, {"id": "no such id"}]}, 3),
        ("/v1/search/batch", {"searches": [RED, RED, {"parts": [{"text": "red"}, {"text": "blue"}]}]}, 4),
        ("/v1/search/batch", {"searches": [{"oops": 1}, RED, RED]}, 2),
        ("/v1/search/batch", {"searches": [{"oops": 1}, {"oops": 1}]}, 1),
        ("/v1/search/image", {}, 1),
        ("/v1/embed", {"text": ["red", "blue"]}, 2),
        ("/v1/embed", {"image": uploads("red", "blue", "red")}, 3),
        ("/v1/embed", {"text": "no list"}, 1),
        ("/search", {"text": "red"}, 1),
        ("/clip/embed_text", {"text": ["red", "blue"]}, 2),
        ("/clip/embed_image", {"image": [IMAGE] * 3}, 3),
        ("/clip/compare", {"subject": IMAGE, "prompt": ["red", "blue"]}, 3),
        ("/knn-service", {"text": "red"}, 1),
        ("/no/such/path", {}, 1),
    ],
)
async def test_each_query_of_a_request_counts_whatever_becomes_of_it(
    gallery: Library, path: str, body: dict[str, object], queries: int
) -> None:
    async with gallery.serving(rate_limit="4/year") as client:
        response = await client.post(path, json=body)
        assert response.status_code != 429
        assert response.headers["ratelimit"].startswith(f'"search";r={4 - queries};t=')
        for remaining in range(4 - queries, 0, -1):
            response = await client.post("/v1/search", json=RED)
            assert response.status_code == 200
            assert response.headers["ratelimit"].startswith(f'"search";r={remaining - 1};t=')
        problem(await client.post("/v1/search", json=RED), 429)


async def test_a_request_with_more_queries_than_remain_is_refused_and_counts_as_one(gallery: Library) -> None:
    """Its body has been read."""
    async with gallery.serving(rate_limit="6/year") as client:
        assert (await client.post("/v1/search/batch", json={"searches": [RED, RED]})).status_code == 200
        for remaining in (3, 2):
            response = await client.post("/v1/search/batch", json={"searches": [RED] * 5})
            assert "6 per 1 year" in problem(response, 429)
            assert int(response.headers["retry-after"]) >= 1
            assert response.headers["ratelimit"].startswith(f'"search";r={remaining};t=')
        assert (await client.post("/v1/embed", json={"text": ["red", "blue"]})).status_code == 200
        # No query remains, so the next body is not read.
        response = await client.post("/v1/search/batch", content=b"no JSON", headers=JSON)
        problem(response, 429)


async def test_a_request_with_more_queries_than_the_whole_limit_is_told_to_be_smaller(gallery: Library) -> None:
    async with gallery.serving(rate_limit="4/year") as client:
        response = await client.post("/v1/search/batch", json={"searches": [RED] * 5})
        assert "5 queries" in problem(response, 422)
        assert response.headers["ratelimit"].startswith('"search";r=3;t=')
    assert gallery.encoder.text_calls == []


async def test_requests_whose_bodies_are_being_read_are_no_more_than_remain(gallery: Library) -> None:
    more = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"text": '
        await more.wait()
        yield b'"red"}'

    async with gallery.serving(rate_limit="2/year") as client, asyncio.TaskGroup() as tasks:
        slow = [tasks.create_task(client.post("/v1/search", content=body(), headers=JSON)) for _ in range(2)]
        for _ in range(100):
            await asyncio.sleep(0)
        problem(await client.post("/v1/search", json=RED), 429)
        more.set()
        assert [(await response).status_code for response in slow] == [200, 200]


async def test_pictures_probes_and_the_page_do_not_count(gallery: Library) -> None:
    async with gallery.serving(rate_limit="1/year", api_keys=hashed("key")) as client:
        client.headers.update(bearer("key"))
        (result,) = (await client.post("/v1/search", json=RED)).json()["results"]
        paths = [result["thumbnail"], result["image"], "/v1/indexes", "/", "/docs", "/healthz", "/readyz", "/metrics"]
        for path in paths * 2:
            response = await client.get(path)
            assert response.status_code == 200
            assert "ratelimit" not in response.headers


async def test_a_login_counts_for_its_address_and_not_for_its_key(gallery: Library) -> None:
    async with gallery.serving(rate_limit="2/year", api_keys=hashed("key")) as client:
        problem(await client.post("/v1/login", json={"key": "wrong"}), 401)
        assert (await client.post("/v1/login", json={"key": "key"})).status_code == 204
        problem(await client.post("/v1/login", json={"key": "key"}), 429)
        for status in (200, 200, 429):
            assert (await client.post("/v1/search", json=RED, headers=bearer("key"))).status_code == status


async def test_each_name_of_a_key_has_a_rate_of_its_own(gallery: Library) -> None:
    keys = hashed("old", "new") + "," + hashed("other", name="robots")
    async with gallery.serving(rate_limit="2/year", api_keys=keys) as client:
        for key, status in [("old", 200), ("new", 200), ("old", 429), ("other", 200)]:
            assert (await client.post("/v1/search", json=RED, headers=bearer(key))).status_code == status
        # Who is not let in uses up nobody's.
        problem(await client.post("/v1/search", json=RED, headers=bearer("wrong")), 401)
        assert (await client.post("/v1/search", json=RED, headers=bearer("other"))).status_code == 200


async def test_without_a_rate_there_is_no_limit(gallery: Library) -> None:
    async with gallery.serving() as client:
        for _ in range(30):
            response = await client.post("/v1/search", json=RED)
            assert response.status_code == 200
            assert "ratelimit" not in response.headers


@pytest.mark.parametrize(("proxies", "statuses"), [("", [200, 429, 429, 429]), ("127.0.0.1", [200, 200, 429, 200])])
def test_a_client_of_this_machine_escapes_the_limit_only_as_a_trusted_proxy(
    tmp_path: Path, proxies: str, statuses: list[int]
) -> None:
    with SearcherProcess(tmp_path, rate_limit="1/year", trusted_proxies=proxies) as server:
        server.finish()
        wait_for_text(server.url, "/readyz", "ready")
        for address, status in zip(["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"], statuses, strict=True):
            headers = {"X-Forwarded-For": address}
            assert httpx.post(server.url + "/v1/search", json=RED, headers=headers).status_code == status


@pytest.mark.parametrize("text", ["many", "20", "20/fortnight", "0/second", "-1/second", "1.5/second"])
def test_what_is_no_rate_is_one_clear_sentence(library: Library, text: str) -> None:
    with pytest.raises(UsageError, match=f"IMGSEARCH_SEARCH_RATE_LIMIT: .*{re.escape(repr(text))}"):
        library.app(rate_limit=text)


@pytest.mark.parametrize("text", ["20/second", "600/minute", "100/5 minute", "1000 per day"])
def test_a_rate_is_written_in_any_of_these_ways(library: Library, text: str) -> None:
    library.app(rate_limit=text)
