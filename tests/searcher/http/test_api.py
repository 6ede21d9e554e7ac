"""The routes of /v1, as a client sees them."""

from __future__ import annotations

import base64
import json
import textwrap
from typing import Any

import pytest

from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, picture, problem, search_colours

pytestmark = pytest.mark.anyio


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_the_answer_to_a_search_says_what_where_and_how_long(gallery: Library) -> None:
    async with gallery.serving() as client:
        document = (await client.post("/v1/search", json={"text": "red", "k": 1})).json()
    took_ms = document.pop("took_ms")
    assert document.pop("next_cursor")
    id = image_id("red.png")
    assert document == {
        "results": [
            {
                "id": id,
                "score": 1.0,
                "uri": "/data/photos/red.png",
                "image": f"/v1/images/{id}?index=photos&run=r1",
                "thumbnail": f"/v1/images/{id}/thumbnail?index=photos&run=r1",
                "width": 32,
                "height": 24,
                "metadata": {"colour": "red"},
            }
        ],
        "next_offset": 1,
        "index": "photos",
        "run": "r1",
        "model": "fake/colours",
    }
    assert 0 < took_ms["encode"] + took_ms["store"] <= took_ms["total"]


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
        assert await search_colours(client, **query, k=1) == ["blue"]


async def test_pages_follow_one_another_to_the_end(gallery: Library) -> None:
    async with gallery.serving() as client:
        all_colours = await search_colours(client, text="red")
        colours: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = (await client.post("/v1/search", json={"text": "red", "k": 3, "offset": offset})).json()
            colours += [result["metadata"]["colour"] for result in page["results"]]
            offset = page["next_offset"]
        assert colours == all_colours
        assert len(colours) == 4
        assert await search_colours(client, text="red", offset=4) == []


async def test_a_filter_and_a_least_score_leave_out_the_rest(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert await search_colours(client, text="red", filter={"colour": {"$nin": ["red", "green"]}}) == [
            "yellow",
            "blue",
        ]
        assert await search_colours(client, text="red", min_score=0.5) == ["red", "yellow"]


async def test_results_carry_what_is_included_and_no_more(gallery: Library) -> None:
    async with gallery.serving() as client:

        async def fields(*include: str) -> set[str]:
            response = await client.post("/v1/search", json={"text": "red", "k": 1, "include": include})
            return set(response.json()["results"][0]) - {"id", "score", "uri", "image", "thumbnail", "width", "height"}

        assert await fields() == set()
        assert await fields("metadata") == {"metadata"}
        assert await fields("metadata", "embedding") == {"metadata", "embedding"}


async def test_an_uploaded_image_is_searched_with_the_same_options(gallery: Library) -> None:
    async with gallery.serving() as client:
        options = {"k": "2", "filter": json.dumps({"colour": {"$ne": "red"}}), "min_score": "0.1"}
        response = await client.post("/v1/search/image", files={"file": picture("red", format="JPEG")}, data=options)
        assert [result["metadata"]["colour"] for result in response.json()["results"]] == ["yellow"]
        assert "file" in problem(await client.post("/v1/search/image", data=options), 422)
        assert problem(await client.post("/v1/search/image", files={"file": b""}), 422).startswith("file: ")
        invalid = await client.post("/v1/search/image", files={"file": picture()}, data={"filter": "{"})
        assert problem(invalid, 422).startswith("filter: ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": True}, "k: Input should be a valid integer"),
        ({"k": "5"}, "k: Input should be a valid integer"),
        ({"min_score": False}, "min_score: Input should be a valid number"),
        ({"text": None, "embedding": ["1"] * 16}, "embedding.0: Input should be a valid number"),
    ],
)
async def test_in_json_true_is_no_number_and_neither_is_a_text(
    gallery: Library, options: dict[str, Any], sentence: str
) -> None:
    async with gallery.serving() as client:
        assert problem(await client.post("/v1/search", json={"text": "red", **options}), 422) == sentence


@pytest.mark.parametrize(
    "path", ["/v1/map", "/v1/facets", "/v1/images/a", "/image/red.png", "/search", "/clip/compare"]
)
async def test_an_empty_name_of_an_index_is_refused(gallery: Library, path: str) -> None:
    posts = {
        "/search": {"text": "red"},
        "/clip/compare": {"subject": "red", "subject_type": "text", "prompt": "blue"},
    }
    async with gallery.serving() as client:
        response = await client.request("POST" if path in posts else "GET", f"{path}?index=", json=posts.get(path))
        assert problem(response, 422) == "index: String should have at least 1 character"


async def test_embed_gives_vectors_that_search_takes(gallery: Library) -> None:
    async with gallery.serving() as client:
        document = (await client.post("/v1/embed", json={"text": ["green", "yellow"]})).json()
        assert (document["model"], document["dim"]) == ("fake/colours", 16)
        assert await search_colours(client, embedding=document["vectors"][1], k=1) == ["yellow"]
        images = [encoded(picture(colour)) for colour in ("red", "blue")]
        vectors = (await client.post("/v1/embed", json={"image": images, "index": "photos"})).json()["vectors"]
        assert await search_colours(client, embedding=vectors[1], k=1) == ["blue"]


async def test_the_image_that_the_document_gives_for_an_example_is_one(gallery: Library) -> None:
    async with gallery.serving() as client:
        document = (await client.get("/openapi.json")).json()
        (example,) = document["components"]["schemas"]["Base64Image"]["properties"]["value"]["examples"]
        assert (await client.post("/v1/embed", json={"image": [example]})).status_code == 200


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


async def test_what_is_nearly_the_same_is_folded_and_named(gallery: Library) -> None:
    gallery.publish({f"{n} {colour}.png": colour for n in range(5) for colour in ("red", "blue")}, run="r2")
    async with gallery.serving() as client:
        search: dict[str, Any] = {"text": "red", "dedupe": 0.97, "k": 1}
        first = (await client.post("/v1/search", json=search)).json()
        second = (await client.post("/v1/search", json={**search, "cursor": first["next_cursor"]})).json()
        ids = [{f"{n} {colour}.png" for n in range(5)} for colour in ("red", "blue")]
        for page, expected in zip((first, second), ids, strict=True):
            (result,) = page["results"]
            assert {result["id"], *result["duplicates"]} == {image_id(key) for key in expected}
            assert "embedding" not in result
        assert second["next_offset"] is second["next_cursor"] is None
        (unfolded,) = (await client.post("/v1/search", json={"text": "red", "k": 1})).json()["results"]
        assert "duplicates" not in unfolded


async def test_of_a_batch_each_search_has_its_answer_or_its_problem(gallery: Library) -> None:
    searches: list[Any] = [
        {"text": "blue", "k": 1},
        {"text": "blue", "k": 0},
        {"id": "nobody"},
        {"txt": "blue"},
        "blue",
        {"image": encoded(b"no image")},
        {"text": "blue", "index": "sketches"},
        {"image": encoded(picture("red")), "k": 1, "include": []},
    ]
    async with gallery.serving() as client:
        batch = await client.post("/v1/search/batch", json={"searches": searches})
        assert batch.status_code == 200
        responses = batch.json()["responses"]
        single = (await client.post("/v1/search", json=searches[0])).json()
    for document in (single, responses[0]):
        del document["took_ms"]
    assert responses[0] == single
    assert responses[7]["results"][0]["id"] == image_id("red.png")
    assert "metadata" not in responses[7]["results"][0]
    problems = [response["problem"] for response in responses[1:7]]
    assert [item["status"] for item in problems] == [422, 404, 422, 422, 422, 404]
    assert problems[0]["errors"][0]["field"] == "k"
    assert "'nobody'" in problems[1]["detail"]
    assert problems[2]["errors"][0]["field"] == "txt"


async def test_a_defect_of_ours_in_one_search_of_a_batch_leaves_the_others(
    gallery: Library, caplog: pytest.LogCaptureFixture
) -> None:
    async with gallery.serving() as client:
        red = (await client.post("/v1/embed", json={"text": ["red"]})).json()["vectors"][0]
        gallery.encoder.failure = ZeroDivisionError("secret")
        searches = [{"image": encoded(picture())}, {"embedding": red, "k": 1}]
        response = await client.post("/v1/search/batch", json={"searches": searches})
    failure, result = response.json()["responses"]
    assert failure["problem"]["status"] == 500
    assert result["results"][0]["id"] == image_id("red.png")
    assert "secret" not in response.text
    assert "secret" in caplog.text


async def test_the_texts_of_a_batch_are_one_call_of_the_model(gallery: Library) -> None:
    async with gallery.serving() as client:
        gallery.encoder.text_calls.clear()
        searches = [{"text": f"photo {n}"} for n in range(20)]
        await client.post("/v1/search/batch", json={"searches": searches})
    assert [len(call) for call in gallery.encoder.text_calls] == [20]


@pytest.mark.parametrize("body", [{}, {"searches": []}, {"searches": [{"text": "a"}] * 65}, {"searches": "a"}, []])
async def test_what_is_no_batch_is_refused(gallery: Library, body: Any) -> None:
    async with gallery.serving() as client:
        problem(await client.post("/v1/search/batch", json=body), 422)


async def test_a_url_that_must_not_be_fetched_is_refused_by_the_name_of_the_field(gallery: Library) -> None:
    async with gallery.serving() as client:
        response = await client.post("/v1/search", json={"image_url": "https://127.0.0.1/red.png"})
        assert problem(response, 422).startswith("image_url: ")
