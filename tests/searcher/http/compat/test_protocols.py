"""The protocols of other servers: their requests with all their quirks, and what is said of what is not done here."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from imgsearch.runs.layout import image_id
from searcher.http import problems
from searcher.http.compat import roboflow
from searcher.search.errors import Problem, invalid
from searcher.search.requests import Embed
from searcher.search.responses import EmbedResponse
from tests.fakes import FakeEncoder
from tests.searcher.library import Library, picture, problem

pytestmark = pytest.mark.anyio

PATHS = {
    "/search": "post",
    "/image/{path}": "get",
    "/health": "get",
    "/clip/embed_text": "post",
    "/clip/embed_image": "post",
    "/clip/compare": "post",
    "/knn-service": "post",
    "/indices-list": "get",
}


def image(colour: str = "red") -> dict[str, str]:
    """As Roboflow's requests have one."""
    return {"type": "base64", "value": base64.b64encode(picture(colour)).decode()}


@pytest.fixture
def two_indexes(library: Library) -> Library:
    """Two indexes with models of their own: photos has a red and a blue image, sketches a green one."""
    other_encoder = FakeEncoder(model="ViT-B-32/other")
    library.encoders[other_encoder.model] = other_encoder
    library.publish({"red.png": "red", "blue.png": "blue"})
    library.publish({"green.png": "green"}, index="sketches", encoder=other_encoder)
    return library


async def test_the_routes_are_described_with_their_schemas_and_statuses(gallery: Library) -> None:
    async with gallery.serving() as client:
        description = (await client.get("/openapi.json")).json()
    tagged = {
        path: method
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if operation.get("tags") == ["compatible"]
    }
    assert tagged == PATHS
    for path, method in PATHS.items():
        operation = description["paths"][path][method]
        assert operation["description"]
        assert set(operation["responses"]) >= {"200", "429", "4XX", "5XX"}
        assert operation["responses"]["200"]["content"]


@pytest.mark.parametrize(
    ("path", "request_schema", "body"),
    [
        ("/search", "ExampleSearch", {"text": "red", "n_results": 2}),
        ("/clip/embed_text", "ClipTexts", {"text": "red"}),
        ("/clip/embed_text", "ClipTexts", {"text": ["red", "blue"], "api_key": None}),
        ("/clip/embed_image", "ClipImages", {"image": image()}),
        ("/clip/embed_image", "ClipImages", {"image": [image(), image("blue")]}),
        ("/clip/compare", "ClipComparison", {"subject": image(), "prompt": "red"}),
        ("/clip/compare", "ClipComparison", {"subject": image(), "prompt": {"a": "red"}}),
        ("/clip/compare", "ClipComparison", {"subject": image(), "prompt": image(), "prompt_type": "image"}),
        ("/knn-service", "KnnSearch", {"text": "red", "num_images": 2}),
    ],
)
async def test_requests_and_answers_are_as_described(
    gallery: Library, path: str, request_schema: str, body: dict[str, Any]
) -> None:
    async with gallery.serving() as client:
        description = (await client.get("/openapi.json")).json()
        response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    operation = description["paths"][path]["post"]
    request = operation["requestBody"]["content"]["application/json"]["schema"]
    assert request == {"$ref": f"#/components/schemas/{request_schema}"}
    result = operation["responses"]["200"]["content"]["application/json"]["schema"]
    for schema, document in [(request, body), (result, response.json())]:
        Draft202012Validator({**schema, "components": description["components"]}).validate(document)


async def test_skypilots_search_gives_paths_and_cosines(gallery: Library) -> None:
    async with gallery.serving() as client:
        response = await client.post("/search", json={"text": "red", "n_results": 2, "model_name": "ViT-bigG-14"})
        assert response.json() == [
            {"image_path": "red.png", "similarity": 1.0},
            {"image_path": "yellow.png", "similarity": pytest.approx(0.7089, abs=1e-3)},
        ]
        assert len((await client.post("/search", json={"text": "red", "n_results": None})).json()) == 4
        image = await client.get("/image/red.png")
        assert image.content == picture("red")
        headers = {"If-None-Match": image.headers["etag"]}
        assert (await client.get("/image/red.png", headers=headers)).status_code == 304
        sentence = problem(await client.get("/image/cats/no%20such.png"), 404)
        assert '"photos"' in sentence
        assert "'cats/no such.png'" in sentence
        partial = await client.get("/image/red.png", headers={"Range": "bytes=1-3"})
        assert (partial.status_code, partial.content) == (206, b"PNG")


async def test_a_limit_is_told_in_the_words_of_the_client(gallery: Library) -> None:
    async with gallery.serving(max_k=3, max_text_chars=5) as client:
        for path, body, sentence in [
            ("/search", {"text": "red", "n_results": 4}, "n_results: at most 3 results"),
            ("/knn-service", {"text": "red", "num_images": 4}, "num_images: at most 3 results"),
            ("/knn-service", {"embedding_input": [1, 2], "num_images": 1}, "embedding_input: it has 2 numbers"),
            ("/clip/compare", {"subject": image(), "prompt": "yellow"}, "prompt: at most 5 characters"),
            ("/clip/embed_image", {"image": {"type": "url", "value": "http://a.example/b"}}, "image: "),
        ]:
            response = await client.post(path, json=body)
            assert problem(response, 422).startswith(sentence)
            assert "cursor" not in response.text


async def test_health_counts_all_images_and_tells_where_nothing_is_known(two_indexes: Library) -> None:
    async with two_indexes.serving() as client:
        assert (await client.get("/health")).json() == {"status": "healthy", "collection_size": 3}


async def test_where_there_is_no_index_yet_health_says_so(library: Library) -> None:
    async with library.serving() as client:
        assert (await client.get("/health")).json() == {"status": "healthy", "collection_size": 0}
        assert (await client.get("/indices-list")).json() == []
        problem(await client.post("/search", json={"text": "red"}), 404)
        problem(await client.post("/clip/embed_text", json={"text": "red"}), 404)
        problem(await client.post("/knn-service", json={"text": "red"}), 404)


async def test_of_several_indexes_each_protocol_says_which(two_indexes: Library) -> None:
    async with two_indexes.serving() as client:
        assert "`index`: photos, sketches" in problem(await client.post("/search", json={"text": "red"}), 400)
        response = await client.post("/search?index=sketches", json={"text": "red"})
        assert response.json()[0]["image_path"] == "green.png"
        assert (await client.get("/image/green.png?index=sketches")).content == picture("green")
        problem(await client.get("/image/green.png?index=photos"), 404)

        assert (await client.get("/indices-list")).json() == ["photos", "sketches"]
        response = await client.post("/knn-service", json={"text": "red", "indice_name": "sketches"})
        assert [result["image_path"] for result in response.json()] == ["/data/sketches/green.png"]
        assert "photos, sketches" in problem(await client.post("/knn-service", json={"text": "red"}), 400)


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


async def test_vectors_of_roboflows_protocol_find_their_images(gallery: Library) -> None:
    async with gallery.serving() as client:
        (vector,) = (await client.post("/clip/embed_image", json={"image": image("blue")})).json()["embeddings"]
        assert np.linalg.norm(vector) == pytest.approx(1)
        response = await client.post("/v1/search", json={"embedding": vector, "k": 1})
        assert response.json()["results"][0]["id"] == image_id("blue.png")
