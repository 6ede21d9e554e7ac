"""Every mistake and every attack gets a sentence, and the searcher goes on."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError
from searcher.http import problems
from tests.searcher.library import Library, picture, problem, search_colours

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("a"), 400),
        (NotFound("a"), 404),
        (BadImage("decode", "a"), 422),
        (PermanentError("a"), 500),
        (TemporaryError("a"), 503),
        (ZeroDivisionError("a"), 500),
    ],
)
def test_each_kind_of_error_has_its_status(error: Exception, status: int) -> None:
    response = problems.response(problems.problem_of_error(error))
    assert response.status_code == status
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("search", "field", "value"),
    [
        ({}, "", "text, image, image_url, id, embedding, parts"),
        ({"text": "a", "id": "b"}, "", "text and id"),
        ({"text": ""}, "text", ""),
        ({"text": "  \n"}, "text", ""),
        ({"text": 5}, "text", ""),
        ({"text": "a", "nearest": 5}, "nearest", ""),
        ({"text": "a", "k": 0}, "k", ""),
        ({"text": "a", "k": 201}, "k", "200"),
        ({"text": "a", "k": 10**400}, "k", ""),
        ({"text": "a", "offset": -1}, "offset", ""),
        ({"text": "a", "offset": 10**9}, "offset", ""),
        ({"text": "a", "min_score": 2}, "min_score", ""),
        ({"text": "a", "include": ["vectors"]}, "include.0", ""),
        ({"text": "a" * 1001}, "text", "1000"),
        ({"text": "a", "filter": {"n": {"$regex": "a"}}}, "filter", "'$regex'"),
        ({"text": "a", "filter": "n = 1"}, "filter", ""),
        ({"image": "!"}, "image", "base64"),
        ({"image": "data:image/png,abc"}, "image", "data:"),
        ({"image": ""}, "image", ""),
        ({"image": "aGVsbG8="}, None, "image"),
        ({"embedding": []}, "embedding", ""),
        ({"embedding": [1, 2]}, "embedding", "2"),
        ({"embedding": [0] * 16}, "embedding", "zero"),
        ({"embedding": ["a"] * 16}, "embedding.0", ""),
        ({"embedding": [None] * 16}, "embedding.0", ""),
        ({"embedding": ["a"] * 16_000}, "embedding.0", ""),
        ({"a" * 100_000: 1}, "a" * 300, ""),
        ({"text": "a", "filter": {"a" * 100_000: None}}, "filter", "aaa"),
        ({"parts": []}, "parts", ""),
        ({"parts": [{"text": "a"}] * 17}, "parts", "16"),
        ({"parts": [{"text": "a", "id": "b"}]}, "parts.0", "text, image, image_url, id, embedding"),
        ({"parts": [{"parts": []}]}, "parts.0.parts", ""),
        ({"parts": [{"text": "a", "weight": 1e9}]}, "parts.0.weight", ""),
        ({"parts": [{"text": "a", "weight": 0}]}, "parts", ""),
        ({"parts": [{"text": "a"}, {"text": "a", "weight": -1}]}, "parts", ""),
    ],
)
async def test_a_wrong_search_is_refused_by_the_name_of_the_field(
    gallery: Library, search: dict[str, Any], field: str | None, value: str
) -> None:
    async with gallery.serving() as client:
        response = await client.post("/v1/search", json=search)
        detail = problem(response, 422)
        assert value in detail
        errors = response.json().get("errors", [{"field": None}])
        assert errors[0]["field"] == field
        assert not field or detail.startswith(f"{field}: ")
        assert len(response.content) < 20_000, "what was sent is not sent back"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"red", 400),
        (b'{"text": "red"', 400),
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "\\ud800"}', 422),
        (b'{"id": "\\ud800"}', 422),
        (b'{"text": "red", "filter": {"a": "\\ud800"}}', 422),
        (b'{"text": "red", "index": "\\ud800"}', 422),
        (b'{"\\ud800": "red"}', 422),
        (b'{"text": "red", "min_score": NaN}', 422),
        (b'{"embedding": [NaN, Infinity]}', 422),
        (b'{"parts": [{"text": "red", "weight": NaN}]}', 422),
        (b'{"embedding": [1e999]}', 422),
        (b"[" * 100_000, 400),
        (b'{"text": "red", "filter": ' + b'{"$and": [' * 300 + b"]}" * 300 + b"}", 422),
        (b'{"text": "red", "k": ' + b"9" * 5000 + b"}", 400),
        (b'["text"]', 422),
        (b"null", 422),
        (b"\x00" * 100, 400),
    ],
)
async def test_a_hostile_body_is_refused(gallery: Library, body: bytes, status: int) -> None:
    async with gallery.serving() as client:
        problem(await client.post("/v1/search", content=body, headers=JSON), status)
        assert await search_colours(client, text="red", k=1) == ["red"]


async def test_a_body_that_is_not_called_json_is_refused(gallery: Library) -> None:
    async with gallery.serving() as client:
        response = await client.post("/v1/search", content=b'{"text": "red"}', headers={"Content-Type": "text/plain"})
        assert "Content-Type: application/json" in problem(response, 422)


async def test_a_damaged_upload_is_refused(gallery: Library) -> None:
    async with gallery.serving() as client:
        headers = {"Content-Type": "multipart/form-data"}
        problem(await client.post("/v1/search/image", content=b"--x", headers=headers), 400)
        headers["Content-Type"] += "; boundary=x"
        problem(await client.post("/v1/search/image", content=b"--x\r\nnothing", headers=headers), 422)


async def test_an_image_with_too_many_pixels_is_refused(gallery: Library) -> None:
    sink = io.BytesIO()
    Image.new("1", (4000, 4000)).save(sink, "PNG")
    async with gallery.serving(max_pixels=1_000_000) as client:
        response = await client.post("/v1/search/image", files={"file": sink.getvalue()})
        assert "16,000,000 pixels" in problem(response, 422)
        assert not gallery.encoder.image_calls


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert "/docs" in problem(await client.get("/v2/search"), 404)
        assert "/docs" in problem(await client.get("/v1/images/../../etc/hostname"), 404)
        response = await client.get("/v1/search")
        assert "GET" in problem(response, 405)
        assert response.headers["allow"] == "POST"


async def test_a_defect_of_ours_shows_nothing_of_the_inside(gallery: Library) -> None:
    gallery.encoder.failure = ZeroDivisionError("secret")
    async with gallery.serving() as client:
        response = await client.post("/v1/search", json={"image": base64.b64encode(picture()).decode()})
        assert "secret" not in problem(response, 500)
