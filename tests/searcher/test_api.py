"""The routes of /v1, as a client sees them."""

from __future__ import annotations

import base64
import json
import textwrap
from typing import Any

import pytest

from imgsearch.layout import image_id
from tests.searcher.library import Library, found, picture, problem

pytestmark = pytest.mark.anyio


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_the_answer_to_a_search_says_what_where_and_how_long(gallery: Library) -> None:
    async with gallery.serving() as client:
        document = (await client.post("/v1/search", json={"text": "red", "k": 1})).json()
    took = document.pop("took_ms")
    id = image_id("red.png")
    assert document == {
        "results": [
            {
                "id": id,
                "score": 1.0,
                "uri": "/data/photos/red.png",
                "image": f"/v1/images/{id}?index=photos",
                "thumbnail": f"/v1/images/{id}/thumbnail?index=photos",
                "metadata": {"colour": "red"},
            }
        ],
        "next_offset": 1,
        "index": "photos",
        "run": "r1",
        "model": "fake/colours",
    }
    assert 0 < took["encode"] + took["store"] <= took["total"]


@pytest.mark.parametrize(
    "query",
    [
        {"text": "blue"},
        {"image": encoded(picture("blue"))},
        {"image": "data:image/png;base64," + encoded(picture("blue"))},
        {"image": "\n".join(textwrap.wrap(encoded(picture("blue")), 40))},
        {"id": image_id("blue.png")},
        {"embedding": [0, 0, 7, *[0] * 13]},
        {"parts": [{"id": image_id("blue.png")}]},
        {"parts": [{"text": "blue"}, {"image": encoded(picture("red")), "weight": 0.2}]},
        {"parts": [{"text": "white"}, {"text": "yellow", "weight": -0.9}]},
        {"text": "blue", "id": None},
    ],
)
async def test_every_kind_of_query_finds_its_image(gallery: Library, query: dict[str, Any]) -> None:
    async with gallery.serving() as client:
        assert await found(client, **query, k=1) == ["blue"]


async def test_pages_follow_one_another_to_the_end(gallery: Library) -> None:
    async with gallery.serving() as client:
        everything = await found(client, text="red")
        colours: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = (await client.post("/v1/search", json={"text": "red", "k": 3, "offset": offset})).json()
            colours += [result["metadata"]["colour"] for result in page["results"]]
            offset = page["next_offset"]
        assert colours == everything
        assert len(colours) == 4
        assert await found(client, text="red", offset=4) == []


async def test_a_filter_and_a_least_score_leave_out_the_rest(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert await found(client, text="red", filter={"colour": {"$nin": ["red", "green"]}}) == ["yellow", "blue"]
        assert await found(client, text="red", min_score=0.5) == ["red", "yellow"]


async def test_results_carry_what_is_included_and_no_more(gallery: Library) -> None:
    async with gallery.serving() as client:

        async def fields(*include: str) -> set[str]:
            answer = await client.post("/v1/search", json={"text": "red", "k": 1, "include": include})
            return set(answer.json()["results"][0]) - {"id", "score", "uri", "image", "thumbnail"}

        assert await fields() == set()
        assert await fields("metadata") == {"metadata"}
        assert await fields("metadata", "embedding") == {"metadata", "embedding"}


async def test_an_uploaded_image_is_searched_with_the_same_options(gallery: Library) -> None:
    async with gallery.serving() as client:
        options = {"k": "2", "filter": json.dumps({"colour": {"$ne": "red"}}), "min_score": "0.1"}
        answer = await client.post("/v1/search/image", files={"file": picture("red", format="JPEG")}, data=options)
        assert [result["metadata"]["colour"] for result in answer.json()["results"]] == ["yellow"]
        assert "file" in problem(await client.post("/v1/search/image", data=options), 422)
        assert "file: it is empty" in problem(await client.post("/v1/search/image", files={"file": b""}), 422)
        wrong = await client.post("/v1/search/image", files={"file": picture()}, data={"filter": "{"})
        assert problem(wrong, 422).startswith("filter: ")


async def test_embed_gives_vectors_that_search_takes(gallery: Library) -> None:
    async with gallery.serving() as client:
        document = (await client.post("/v1/embed", json={"text": ["green", "yellow"]})).json()
        assert (document["model"], document["dim"]) == ("fake/colours", 16)
        assert await found(client, embedding=document["vectors"][1], k=1) == ["yellow"]
        images = [encoded(picture(colour)) for colour in ("red", "blue")]
        vectors = (await client.post("/v1/embed", json={"image": images, "index": "photos"})).json()["vectors"]
        assert await found(client, embedding=vectors[1], k=1) == ["blue"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "give either text or image"),
        ({"text": ["a"], "image": ["aGk="]}, "give either text or image"),
        ({"text": []}, "text: "),
        ({"text": ["a"] * 65}, "text: "),
        ({"text": ["a" * 1001]}, "text: at most 1000 characters"),
    ],
)
async def test_embed_refuses_what_it_cannot_do(gallery: Library, body: dict[str, Any], sentence: str) -> None:
    async with gallery.serving() as client:
        assert sentence in problem(await client.post("/v1/embed", json=body), 422)


async def test_an_id_that_is_not_there_is_not_found(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert "'nobody'" in problem(await client.post("/v1/search", json={"id": "nobody"}), 404)
