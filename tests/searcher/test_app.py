"""What every server has: the API's description, the page, and the headers that protect it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.searcher.library import Library
from tests.searcher.schemas import validate

pytestmark = pytest.mark.anyio


@pytest.fixture
def description(library: Library) -> dict[str, Any]:
    return library.app().openapi()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from references(item)


def test_the_description_lists_the_routes_of_the_api(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    assert set(description["paths"]) == {
        "/v1/search",
        "/v1/search/batch",
        "/v1/search/image",
        "/v1/embed",
        "/v1/facets",
        "/v1/map",
        "/v1/map/sprite",
        "/v1/images/{id}",
        "/v1/images/{id}/thumbnail",
        "/v1/indexes",
        "/search",
        "/image/{path}",
        "/health",
        "/clip/embed_text",
        "/clip/embed_image",
        "/clip/compare",
        "/knn-service",
        "/indices-list",
    }
    upload = description["paths"]["/v1/search/image"]["post"]["requestBody"]["content"]
    assert list(upload) == ["multipart/form-data"]


def test_the_description_is_valid_and_complete_in_itself(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = set(references(description))
    assert names
    assert names <= {f"#/components/schemas/{name}" for name in schemas}
    for path in description["paths"].values():
        for operation in path.values():
            assert operation["description"]
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
            assert "application/problem+json" in operation["responses"]["429"]["content"]
    for path, method in [("/v1/search", "post"), ("/v1/search/image", "post"), ("/v1/map", "get")]:
        assert "application/problem+json" in description["paths"][path][method]["responses"]["410"]["content"]


async def test_the_examples_are_answered_as_described(gallery: Library, description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    async with gallery.serving() as client:
        for path, request, response in [
            ("/v1/search", "Search", "SearchResponse"),
            ("/v1/search/batch", "Batch", "BatchResponse"),
            ("/v1/embed", "Embed", "EmbedResponse"),
        ]:
            assert schemas[request]["examples"]
            for example in schemas[request]["examples"]:
                validate(example, request, description)
                posted = await client.post(path, json=example)
                assert posted.status_code == 200, posted.text
                validate(posted.json(), response, description)
        fields = {"text": "red", "include": ["metadata", "embedding"], "dedupe": 0.9}
        validate((await client.post("/v1/search", json=fields)).json(), "SearchResponse", description)
        batch = (await client.post("/v1/search/batch", json={"searches": [{"text": ""}]})).json()
        assert batch["responses"][0]["problem"]
        validate(batch, "BatchResponse", description)
        validate((await client.get("/v1/indexes")).json(), "IndexesResponse", description)


async def test_the_page_loads_with_all_that_it_names_and_nothing_from_elsewhere(gallery: Library) -> None:
    async with gallery.serving() as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "://" not in page.text
        for name in re.findall(r'(?:href|src)="([^":]+)"', page.text):
            response = await client.get(f"/{name}")
            assert response.status_code == 200
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "://" not in response.text
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/openapi.json")).json()["openapi"]


async def test_the_reference_works_where_nothing_else_can_be_reached(gallery: Library) -> None:
    async with gallery.serving() as client:
        page = await client.get("/docs")
        assert "script-src 'self';" in page.headers["content-security-policy"]
        files = re.findall(r'(?:href|src)="([^":,]+)"', page.text)
        assert files == ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]
        for name, phrase in zip(files, [".swagger-ui", "SwaggerUIBundle", "openapi.json"], strict=True):
            response = await client.get(f"/{name}")
            assert response.status_code == 200
            assert phrase in response.text
        assert "http" not in page.text
        assert "<script>" not in page.text  # which its own policy would forbid


def test_the_description_tells_what_every_answer_has(description: dict[str, Any]) -> None:
    for path in description["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                assert {"X-Request-ID", "Server-Timing"} <= set(response["headers"]), status
    for path in ("/v1/images/{id}", "/v1/images/{id}/thumbnail", "/v1/map/sprite", "/image/{path}"):
        responses = description["paths"][path]["get"]["responses"]
        assert {"200", "206", "304", "416", "429"} <= set(responses)
        assert {"ETag", "Cache-Control", "Accept-Ranges"} <= set(responses["200"]["headers"])
        assert "Content-Range" in responses["206"]["headers"]
        headers = {parameter["name"].lower() for parameter in description["paths"][path]["get"]["parameters"]}
        assert {"if-none-match", "range", "if-range"} <= headers
    assert "304" in description["paths"]["/v1/facets"]["get"]["responses"]
