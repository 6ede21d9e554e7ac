"""The protocol of Roboflow's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from imgsearch.runs.layout import image_id
from tests.fakes import COLOURS, FakeEncoder
from tests.searcher.content.web import WebServer
from tests.searcher.http.compat.inputs import image
from tests.searcher.library import Library, picture, problem

pytestmark = pytest.mark.anyio


async def test_roboflows_client_chooses_a_model_by_its_name_or_by_that_of_an_index(two_indexes: Library) -> None:
    async with two_indexes.serving() as client:

        async def embed(path: str = "", **more: Any) -> httpx.Response:
            return await client.post(f"/clip/embed_text{path}", json={"text": "red", **more})

        assert "`index`: photos, sketches" in problem(await embed(), 400)
        for path, fields, index in [
            ("?index=photos", {}, "photos"),
            ("?index=sketches", {}, "sketches"),
            ("", {"clip_version_id": "fake/colours"}, "photos"),
            ("", {"clip_version_id": "ViT-B-32"}, "sketches"),
            ("", {"clip_version_id": "ViT-B-32/other"}, "sketches"),
            ("?index=sketches", {"clip_version_id": "ViT-B-32"}, "sketches"),
        ]:
            encoder = two_indexes.encoders["ViT-B-32/other"] if index == "sketches" else two_indexes.encoder
            assert isinstance(encoder, FakeEncoder)
            encoder.text_calls.clear()
            text = f"red {path} {fields}"
            response = await client.post(f"/clip/embed_text{path}", json={"text": text, **fields})
            assert response.status_code == 200, response.text
            assert encoder.text_calls == [[text]]
        for path, version in [("", "ViT-B-16"), ("?index=photos", "ViT-B-32")]:
            sentence = problem(await embed(path, clip_version_id=version), 422)
            assert sentence.startswith("clip_version_id: ")
            assert f"'{version}'" in sentence


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "red"}, "subject"),
        ({"subject": "red", "prompt": "red"}, "subject"),
        ({"subject": image(), "prompt": image()}, "prompt"),
        ({"subject": image(), "subject_type": "text", "prompt": "red"}, "subject"),
        ({"subject": image(), "prompt": ["red", image()]}, "prompt"),
        ({"subject": image(), "prompt": {"a": "red"}, "prompt_type": "image"}, "prompt"),
        ({"subject": image(), "prompt": {}}, "prompt"),
        ({"subject": image(), "prompt": []}, "prompt"),
        ({"subject": image(), "prompt": ["red"] * 65}, "prompt"),
        ({"subject": image(), "prompt": 3}, "prompt.0"),
        ({"subject": image(), "prompt": ["red", {"type": "base64", "value": "?"}]}, "prompt.1.base64.value"),
        ({"subject": {"type": "numpy", "value": "gASV"}, "prompt": "red"}, "subject"),
        ({"subject": image(), "subject_type": "video", "prompt": "red"}, "subject_type"),
    ],
)
async def test_what_cannot_be_compared_is_named(gallery: Library, body: dict[str, Any], field: str) -> None:
    async with gallery.serving() as client:
        assert problem(await client.post("/clip/compare", json=body), 422).startswith(f"{field}: ")


async def test_prompts_with_names_keep_them_even_if_they_are_numbers(gallery: Library) -> None:
    async with gallery.serving() as client:
        body = {"subject": "red", "subject_type": "text", "prompt": {"1": "blue", "0": "red", "type": "red"}}
        similarity = (await client.post("/clip/compare", json=body)).json()["similarity"]
    assert list(similarity) == ["1", "0", "type"]
    assert similarity["0"] == similarity["type"] == pytest.approx(1)
    assert similarity["1"] < 0.1


async def test_a_pickled_array_is_never_read(gallery: Library) -> None:
    """Roboflow's servers can be set to unpickle what a client sends."""
    async with gallery.serving() as client:
        response = await client.post("/clip/embed_image", json={"image": {"type": "numpy", "value": "gASV"}})
        assert "'base64', 'url'" in problem(response, 422)


@asynccontextmanager
async def serving_with_web(gallery: Library) -> AsyncIterator[tuple[WebServer, httpx.AsyncClient]]:
    """A web server with an image of a colour below the path of its name, and a searcher that may fetch from it."""

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        colour = request.split()[1].decode().split("/")[1]
        if colour not in COLOURS:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        data = picture(colour)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))

    gallery.address_check = lambda address, listed: address.is_loopback
    web = WebServer(reply)
    async with (
        web.running(None),
        gallery.serving(url_schemes="http", url_allow=f"127.0.0.1:{web.port}") as client,
    ):
        yield web, client


async def test_an_image_of_a_url_is_fetched_by_the_searchers_own_guarded_way(gallery: Library) -> None:
    async with serving_with_web(gallery) as (web, client):
        colours = ["red", "green", "blue", "yellow"] * 10
        paths = [f"/{colour}/{number}" for number, colour in enumerate(colours)]
        images = [{"type": "url", "value": f"http://127.0.0.1:{web.port}{path}"} for path in paths]
        response = await client.post("/clip/embed_image", json={"image": images})
        uploaded = await client.post("/clip/embed_image", json={"image": [image(colour) for colour in colours]})
        assert response.json()["embeddings"] == uploaded.json()["embeddings"]
        assert sorted(request.split()[1].decode() for request in web.requests) == sorted(paths)
        refused = {"type": "url", "value": f"http://127.0.0.2:{web.port}/red"}
        assert "is not allowed" in problem(await client.post("/clip/embed_image", json={"image": refused}), 422)


async def test_where_a_fetch_is_refused_the_problem_names_the_field(gallery: Library) -> None:
    async with serving_with_web(gallery) as (web, client):
        for field, other_field in [("subject", "prompt"), ("prompt", "subject")]:
            response = await client.post(
                "/clip/compare",
                json={
                    field: {"type": "url", "value": f"http://127.0.0.1:{web.port}/nothing"},
                    f"{field}_type": "image",
                    other_field: image("red"),
                    f"{other_field}_type": "image",
                },
            )
            assert problem(response, 422) == f"{field}: the server responded with status 404 instead of an image"


async def test_vectors_of_roboflows_protocol_find_their_images(gallery: Library) -> None:
    async with gallery.serving() as client:
        (vector,) = (await client.post("/clip/embed_image", json={"image": image("blue")})).json()["embeddings"]
        assert np.linalg.norm(vector) == pytest.approx(1)
        response = await client.post("/v1/search", json={"embedding": vector, "k": 1})
        assert response.json()["results"][0]["id"] == image_id("blue.png")
