"""The protocol of clip-retrieval."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, picture, problem

pytestmark = pytest.mark.anyio


async def test_clip_retrieval_takes_json_by_whatever_name(gallery: Library) -> None:
    body = json.dumps({"text": "red", "modality": "image", "num_images": 1, "indice_name": None}).encode()
    async with gallery.serving() as client:
        for type in [None, "text/plain;charset=UTF-8", "application/json", "application/x-www-form-urlencoded"]:
            headers = {} if type is None else {"Content-Type": type}
            response = await client.post("/knn-service", content=body, headers=headers)
            assert [result["id"] for result in response.json()] == [image_id("red.png")]
        problem(await client.post("/knn-service", content=b"{"), 400)
        problem(await client.post("/knn-service", content=b""), 422)


async def test_clip_retrieval_takes_the_first_of_what_is_given(gallery: Library) -> None:
    async with gallery.serving() as client:
        blue = base64.b64encode(picture("blue")).decode()
        vector = (await client.post("/v1/embed", json={"text": ["green"]})).json()["vectors"][0]
        for body, colour in [
            ({"text": "red", "image": blue, "embedding_input": vector}, "red"),
            ({"text": "", "image": blue, "embedding_input": vector}, "blue"),
            ({"text": None, "image": None, "image_url": None, "embedding_input": vector}, "green"),
        ]:
            response = await client.post("/knn-service", json={**body, "num_images": 1})
            assert [result["colour"] for result in response.json()] == [colour]
        for nothing in ({}, {"text": ""}, {"text": None, "image": None}):
            sentence = problem(await client.post("/knn-service", json=nothing), 422)
            assert sentence == "give one of text, image, image_url, embedding_input"


async def test_clip_retrieval_folds_near_duplicates_only_if_it_is_asked(gallery: Library) -> None:
    gallery.publish({f"{n}.png": "red" for n in range(3)} | {"blue.png": "blue"}, run="r2")
    async with gallery.serving() as client:

        async def colours(**fields: Any) -> list[str]:
            response = await client.post("/knn-service", json={"text": "red", **fields})
            return [result["colour"] for result in response.json()]

        assert await colours() == ["red", "red", "red", "blue"]
        assert await colours(deduplicate=True) == ["red", "blue"]


async def test_clip_retrieval_gives_the_metadata_and_its_own_fields_win(library: Library) -> None:
    metadata = {
        "colour": "red",
        "url": "https://photos.example/red.png",
        "caption": "A red one",
        "id": 7,
        "similarity": 3,
    }
    library.publish({"red.png": metadata, "blue.png": {"colour": "blue", "url": 5, "caption": True, "cls": "a"}})
    async with library.serving() as client:
        red, blue = (await client.post("/knn-service", json={"text": "red"})).json()
    assert red == {**metadata, "id": image_id("red.png"), "similarity": 1.0, "image_path": "/data/photos/red.png"}
    assert blue["url"].startswith(f"http://searcher/v1/images/{image_id('blue.png')}?index=photos")
    assert (blue["caption"], blue["cls"]) == ("", "a")


@pytest.mark.parametrize(
    "ignored",
    [
        {"use_safety_model": True, "use_violence_detector": True, "aesthetic_score": 9, "aesthetic_weight": 0.5},
        {"aesthetic_score": "", "aesthetic_weight": "", "num_result_ids": 3000, "verbose": True, "use_mclip": False},
    ],
)
async def test_clip_retrievals_settings_that_mean_nothing_here_change_nothing(
    gallery: Library, ignored: dict[str, Any]
) -> None:
    async with gallery.serving() as client:
        response_without = await client.post("/knn-service", json={"text": "red"})
        assert (await client.post("/knn-service", json={"text": "red", **ignored})).json() == response_without.json()


@pytest.mark.parametrize(("field", "value"), [("modality", "text"), ("use_mclip", True), ("num_images", 0)])
async def test_what_clip_retrieval_could_do_and_we_cannot_is_refused(gallery: Library, field: str, value: Any) -> None:
    async with gallery.serving() as client:
        response = await client.post("/knn-service", json={"text": "red", field: value})
        assert problem(response, 422).startswith(f"{field}: ")
