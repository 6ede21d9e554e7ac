"""What every answer has: its request's id, its times, CORS headers, compression; and HEAD."""

from __future__ import annotations

import gzip
import json
import logging
import re
from pathlib import Path

import httpx
import pytest

from imgsearch import logs
from imgsearch.errors import UsageError
from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, hashed, picture, problem
from tests.searcher.process import SearcherProcess, answers

pytestmark = pytest.mark.anyio

RED = {"text": "red", "k": 1}
IMAGE = f"/v1/images/{image_id('red.png')}"
ORIGIN = "https://photos.example.com"


async def test_a_requests_own_id_is_told_and_else_one_is_made(gallery: Library) -> None:
    async with gallery.serving() as client:
        for id in ["a", "x" * 128, "!~{}/=+"]:
            assert (await client.get("/healthz", headers={"X-Request-ID": id})).headers["x-request-id"] == id
        made = [(await client.get("/healthz")).headers["x-request-id"] for _ in range(2)]
        assert all(re.fullmatch(r"[0-9a-f]{32}", id) for id in made)
        assert made[0] != made[1]


@pytest.mark.parametrize("id", [b"", b"x" * 129, b"two words", b"a\tb", "schön".encode(), b"\xff"])
async def test_an_id_that_cannot_be_shown_is_replaced(gallery: Library, id: bytes) -> None:
    async with gallery.serving() as client:
        told = (await client.get("/healthz", headers={b"X-Request-ID": id})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", told)


async def test_a_problem_tells_the_id_whoever_finds_it(gallery: Library) -> None:
    id = {"X-Request-ID": "lost-7"}
    async with gallery.serving(api_keys=hashed("key"), rate_limit="4/year", max_body_bytes=200) as client:
        known = {**id, "Authorization": "Bearer key"}
        gallery.encoder.failure = RuntimeError("a surprise")
        for status, answer in {
            401: await client.post("/v1/search", json=RED, headers=id),
            404: await client.get("/nowhere", headers=known),
            422: await client.post("/v1/search", json={}, headers=known),
            413: await client.post("/v1/search", content=b" " * 201, headers=known),
            500: await client.post("/v1/search", json={"text": "blue"}, headers=known),
        }.items():
            problem(answer, status)
            assert answer.json()["request_id"] == answer.headers["x-request-id"] == "lost-7"
        failing = await client.post("/v1/search/batch", json={"searches": [{}]}, headers=known)
        assert failing.json()["responses"][0]["problem"]["request_id"] == "lost-7"
        limited = await client.post("/v1/search", json=RED, headers=known)
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


async def test_a_surprise_that_happens_in_no_route_is_a_problem_too(gallery: Library) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a surprise")

    async with gallery.serving(cors_origins=ORIGIN) as client:
        gallery.store.get = broken  # type: ignore[method-assign, assignment]
        answer = await client.get(IMAGE, headers={"Origin": ORIGIN})
        problem(answer, 500)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.json()["request_id"]
        assert 'status="500"' in (await client.get("/metrics")).text


async def test_an_answer_tells_where_its_time_went(gallery: Library) -> None:
    def names(answer: httpx.Response) -> list[str]:
        parts = answer.headers["server-timing"].split(", ")
        assert all(re.fullmatch(r"[a-z]+;dur=[0-9.e+-]+", part) for part in parts)
        return [part.partition(";")[0] for part in parts]

    async with gallery.serving() as client:
        search = await client.post("/v1/search", json=RED)
        upload = await client.post("/v1/search/image", files={"file": picture("red")})
        assert names(search) == names(upload) == ["encode", "store", "total"]
        took = search.json()["took_ms"]
        assert f"encode;dur={took['encode']:g}, store;dur={took['store']:g}, " in search.headers["server-timing"]
        assert names(await client.get(IMAGE)) == ["store", "file", "total"]
        assert names(await client.get(f"{IMAGE}/thumbnail")) == ["store", "file", "total"]
        assert names(await client.get("/nowhere")) == ["total"]


def every_get(description: dict[str, object]) -> list[str]:
    paths = description["paths"]
    assert isinstance(paths, dict)
    listed = [path for path, operations in paths.items() if "get" in operations]
    filled = [re.sub(r"\{path\}", "red.png", path.replace("{id}", image_id("red.png"))) for path in listed]
    return [*filled, "/", "/page/page.css", "/docs", "/docs/start.js", "/openapi.json", "/healthz", "/readyz"]


def test_head_is_get_without_the_body(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        server.finish()
        answers(server.url, "/readyz", "ready")
        paths = every_get(client.get("/openapi.json").json())
        assert len(paths) >= 14
        varying = {"date", "server-timing", "x-request-id"}
        for path in paths:
            told, whole = client.head(path), client.get(path)
            assert (told.status_code, told.content) == (whole.status_code, b""), path
            kept = {name: value for name, value in whole.headers.items() if name not in varying}
            assert {name: value for name, value in told.headers.items() if name not in varying} == kept
        # The connection goes on: no byte of a body was sent.
        assert client.head(IMAGE, headers={"Range": "bytes=0-9"}).status_code == 206
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.head("/v1/search").status_code == 405
        counted = client.get("/metrics").text
        assert 'imgsearch_requests_total{method="HEAD",route="/v1/images/{id}",status="206"} 1.0' in counted


def raw(client: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it came over the wire."""
    with client.stream("GET", path, headers={"Accept-Encoding": "gzip", **headers}) as answer:
        return answer, b"".join(answer.iter_raw())


def test_what_is_large_and_no_picture_is_compressed_and_has_a_weak_etag(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        server.finish()
        answers(server.url, "/readyz", "ready")
        for _ in range(2):  # the second is as good as the first
            for path in ("/openapi.json", "/", "/page/page.css", "/docs/swagger-ui.css"):
                answer, body = raw(client, path)
                assert answer.headers["content-encoding"] == "gzip", path
                assert "Accept-Encoding" in answer.headers["vary"]
                plain = client.get(path, headers={"Accept-Encoding": "identity"})
                assert "content-encoding" not in plain.headers
                assert "Accept-Encoding" in plain.headers["vary"]
                assert gzip.decompress(body) == plain.content
                assert answer.headers.get("etag", "W/").startswith("W/")
        etag = client.get("/page/page.css").headers["etag"]
        assert client.get("/page/page.css", headers={"If-None-Match": etag}).status_code == 304
        answer, body = raw(client, "/healthz")
        assert "content-encoding" not in answer.headers
        for path in (IMAGE, f"{IMAGE}/thumbnail"):
            answer, body = raw(client, path)
            assert "content-encoding" not in answer.headers
            assert not answer.headers["etag"].startswith("W/")


async def test_a_picture_of_an_unusual_kind_is_not_compressed(gallery: Library) -> None:
    """Its ETag is strong, and its ranges are those of the file."""
    data = picture("red", format="BMP", size=(64, 64))
    gallery.sources["/data/photos"].replace("red.png", data)
    async with gallery.serving() as client:
        answer = await client.get(IMAGE, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-type"] == "image/bmp"
        assert "content-encoding" not in answer.headers
        assert answer.content == data


async def test_a_page_of_the_origins_may_use_the_api_whatever_it_is_answered(gallery: Library) -> None:
    limits = {"api_keys": hashed("key"), "rate_limit": "1/year", "max_body_bytes": 200}
    async with gallery.serving(cors_origins=f"https://other.example.com, {ORIGIN}", **limits) as client:
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        wanted = "authorization,content-type,if-none-match,range,x-request-id"
        before = await client.options("/v1/search", headers={**asked, "Access-Control-Request-Headers": wanted})
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == ORIGIN
        client.headers["Origin"] = ORIGIN
        known = {"Authorization": "Bearer key"}
        for status, answer in {
            401: await client.post("/v1/search", json=RED),
            413: await client.post("/v1/search", content=b" " * 201, headers=known),
            429: await client.post("/v1/search", json=RED, headers=known),
            404: await client.get("/nowhere", headers=known),
            200: await client.get("/v1/indexes", headers=known),
        }.items():
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers
            assert "Origin" in answer.headers["vary"]


async def test_no_other_page_may_use_it(gallery: Library) -> None:
    stranger = {"Origin": "https://evil.example.com"}
    async with gallery.serving(cors_origins=ORIGIN) as client:
        assert "access-control-allow-origin" not in (await client.get("/v1/indexes", headers=stranger)).headers
        asked = {**stranger, "Access-Control-Request-Method": "POST"}
        assert (await client.options("/v1/search", headers=asked)).status_code == 400
    async with gallery.serving() as client:
        assert "access-control-allow-origin" not in (await client.get("/v1/indexes", headers=stranger)).headers
    async with gallery.serving(cors_origins="*") as client:
        answer = await client.get("/v1/indexes", headers=stranger)
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origins", ["photos.example.com", f"{ORIGIN}/", f"{ORIGIN}/search", "https://*", "ftp://a", f"{ORIGIN}, x", "null"]
)
def test_what_is_no_origin_is_one_clear_sentence(library: Library, origins: str) -> None:
    wrong = repr(origins.split(", ")[-1])
    with pytest.raises(UsageError, match=f"IMGSEARCH_SEARCH_CORS_ORIGINS: .*{re.escape(wrong)}"):
        library.app(cors_origins=origins)


def test_a_line_outside_of_any_request_has_no_id() -> None:
    record = logging.LogRecord("searcher", logging.INFO, "", 0, "hello", None, None)
    assert "request_id" not in json.loads(logs.JsonFormatter({}).format(record))
