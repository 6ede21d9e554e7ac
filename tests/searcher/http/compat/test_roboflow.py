"""The protocol of Roboflow's client."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from imgsearch.runs.layout import image_id
from searcher.http import problems
from searcher.http.compat import roboflow
from searcher.search.errors import Problem, invalid
from searcher.search.requests import Embed
from searcher.search.responses import EmbedResponse
from tests.fakes import FakeEncoder
from tests.searcher.http.compat.inputs import image
from tests.searcher.library import Library, problem

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


class _OneModel:
    """A catalog and a finder of one index."""

    def __init__(self, folder: Path) -> None:
        self.pointer = Library(folder).publish()
        self.images: list[bytes] = []

    def pick(self, name: str | None) -> _OneModel:
        return self

    async def embed(self, embed: Embed) -> EmbedResponse:
        (data,) = embed.image or []
        self.images.append(data)
        return EmbedResponse(model="m", dim=1, vectors=[[float(data)]])


async def test_an_image_of_a_url_is_fetched_by_the_searchers_own_guarded_way(tmp_path: Path) -> None:
    one_model: Any = _OneModel(tmp_path)
    app = FastAPI()
    urls = []

    @asynccontextmanager
    async def fetch(url: str) -> AsyncIterator[bytes]:
        urls.append(url)
        number = url.rpartition("/")[2].encode()
        yield number
        assert number in one_model.images

    app.include_router(roboflow.router(one_model, one_model, fetch))
    images = [{"type": "url", "value": f"https://photos.example/{number}"} for number in range(40)]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://searcher") as client:
        response = await client.post("/clip/embed_image", json={"image": images})
    assert response.json()["embeddings"] == [[number] for number in range(40)]
    assert sorted(urls) == sorted(item["value"] for item in images)


async def test_where_a_fetch_is_refused_the_problem_names_the_field(tmp_path: Path) -> None:
    one_model: Any = _OneModel(tmp_path)
    app = FastAPI()
    app.add_exception_handler(Problem, lambda _, error: problems.response(error))  # type: ignore[arg-type]

    @asynccontextmanager
    async def fetch(url: str) -> AsyncIterator[bytes]:
        raise invalid("image_url", "not that one")
        yield

    app.include_router(roboflow.router(one_model, one_model, fetch))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://searcher") as client:
        for field, other_field in [("subject", "prompt"), ("prompt", "subject")]:
            body = {field: {"type": "url", "value": "https://a.example"}, f"{field}_type": "image"}
            other_value = {
                other_field: {"type": "base64", "value": base64.b64encode(b"1").decode()},
                f"{other_field}_type": "image",
            }
            response = await client.post("/clip/compare", json={**body, **other_value})
            assert problem(response, 422) == f"{field}: not that one"


async def test_vectors_of_roboflows_protocol_find_their_images(gallery: Library) -> None:
    async with gallery.serving() as client:
        (vector,) = (await client.post("/clip/embed_image", json={"image": image("blue")})).json()["embeddings"]
        assert np.linalg.norm(vector) == pytest.approx(1)
        response = await client.post("/v1/search", json={"embedding": vector, "k": 1})
        assert response.json()["results"][0]["id"] == image_id("blue.png")
