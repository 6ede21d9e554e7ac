"""The id and the duration of each request."""

from __future__ import annotations

import json
import logging
import re

import httpx
import pytest

from imgsearch import logs
from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, hashed, picture, problem

pytestmark = pytest.mark.anyio

RED = {"text": "red", "k": 1}
IMAGE = f"/v1/images/{image_id('red.png')}"


async def test_a_requests_own_id_is_told_and_else_one_is_made(gallery: Library) -> None:
    async with gallery.serving() as client:
        for id in ["a", "x" * 128, "!~{}/=+"]:
            assert (await client.get("/healthz", headers={"X-Request-ID": id})).headers["x-request-id"] == id
        ids = [(await client.get("/healthz")).headers["x-request-id"] for _ in range(2)]
        assert all(re.fullmatch(r"[0-9a-f]{32}", id) for id in ids)
        assert ids[0] != ids[1]


@pytest.mark.parametrize("id", [b"", b"x" * 129, b"two words", b"a\tb", "schön".encode(), b"\xff"])
async def test_an_id_that_cannot_be_shown_is_replaced(gallery: Library, id: bytes) -> None:
    async with gallery.serving() as client:
        new_id = (await client.get("/healthz", headers={b"X-Request-ID": id})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", new_id)


async def test_a_problem_tells_the_id_whoever_finds_it(gallery: Library) -> None:
    id = {"X-Request-ID": "lost-7"}
    async with gallery.serving(api_keys=hashed("key"), rate_limit="4/year", max_body_bytes=200) as client:
        headers = {**id, "Authorization": "Bearer key"}
        gallery.encoder.failure = RuntimeError("a surprise")
        for status, response in {
            401: await client.post("/v1/search", json=RED, headers=id),
            404: await client.get("/nowhere", headers=headers),
            422: await client.post("/v1/search", json={}, headers=headers),
            413: await client.post("/v1/search", content=b" " * 201, headers=headers),
            500: await client.post("/v1/search", json={"text": "blue"}, headers=headers),
        }.items():
            problem(response, status)
            assert response.json()["request_id"] == response.headers["x-request-id"] == "lost-7"
        batch = await client.post("/v1/search/batch", json={"searches": [{}]}, headers=headers)
        assert batch.json()["responses"][0]["problem"]["request_id"] == "lost-7"
        limited = await client.post("/v1/search", json=RED, headers=headers)
        problem(limited, 429)
        assert limited.json()["request_id"] == "lost-7"


@pytest.mark.parametrize("formatter", [logs.JsonFormatter({}), logs.TextFormatter()])
async def test_the_log_lines_of_a_request_tell_its_id(
    gallery: Library, caplog: pytest.LogCaptureFixture, formatter: logging.Formatter
) -> None:
    caplog.handler.setFormatter(formatter)
    gallery.encoder.failure = RuntimeError("a surprise")
    async with gallery.serving() as client:
        caplog.clear()
        await client.post("/v1/search", json=RED, headers={"X-Request-ID": "lost-7"})
    line = next(line for line in caplog.text.splitlines() if "/v1/search" in line)
    assert "lost-7" in line
    assert "a surprise" in caplog.text


async def test_an_answer_tells_where_its_time_went(gallery: Library) -> None:
    def names(response: httpx.Response) -> list[str]:
        parts = response.headers["server-timing"].split(", ")
        assert all(re.fullmatch(r"[a-z]+;dur=[0-9.e+-]+", part) for part in parts)
        return [part.partition(";")[0] for part in parts]

    async with gallery.serving() as client:
        search = await client.post("/v1/search", json=RED)
        upload = await client.post("/v1/search/image", files={"file": picture("red")})
        assert names(search) == names(upload) == ["encode", "store", "total"]
        took_ms = search.json()["took_ms"]
        assert f"encode;dur={took_ms['encode']:g}, store;dur={took_ms['store']:g}, " in search.headers["server-timing"]
        assert names(await client.get(IMAGE)) == ["store", "file", "total"]
        assert names(await client.get(f"{IMAGE}/thumbnail")) == ["store", "file", "total"]
        assert names(await client.get("/nowhere")) == ["total"]


def test_a_line_outside_of_any_request_has_no_id() -> None:
    record = logging.LogRecord("searcher", logging.INFO, "", 0, "hello", None, None)
    assert "request_id" not in json.loads(logs.JsonFormatter({}).format(record))
