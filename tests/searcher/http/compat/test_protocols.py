"""The protocols of other servers: their requests with all their quirks, and what is said of what is not done here."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.searcher.http.compat.inputs import image
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
