"""What every server has: the API's description, the page, and the headers that protect it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.searcher.library import Library

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
        for one in node:
            yield from references(one)


def validate(value: Any, name: str, description: dict[str, Any]) -> None:
    """Raises where `value` is not what the description says of the schema `name`."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_the_description_lists_the_routes_of_the_api(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    assert set(description["paths"]) == {
        "/v1/search",
        "/v1/search/image",
        "/v1/embed",
        "/v1/images/{id}",
        "/v1/images/{id}/thumbnail",
        "/v1/indexes",
    }
    upload = description["paths"]["/v1/search/image"]["post"]["requestBody"]["content"]
    assert list(upload) == ["multipart/form-data"]


def test_the_description_is_valid_and_complete_in_itself(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    found = set(references(description))
    assert found
    assert found <= {f"#/components/schemas/{name}" for name in schemas}
    for path in description["paths"].values():
        for operation in path.values():
            assert operation["description"]
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]


async def test_the_examples_are_answered_as_described(gallery: Library, description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    async with gallery.serving() as client:
        for path, request, response in [
            ("/v1/search", "Search", "SearchResponse"),
            ("/v1/embed", "Embed", "EmbedResponse"),
        ]:
            assert schemas[request]["examples"]
            for example in schemas[request]["examples"]:
                validate(example, request, description)
                answer = await client.post(path, json=example)
                assert answer.status_code == 200, answer.text
                validate(answer.json(), response, description)
        everything = {"text": "red", "include": ["metadata", "embedding"]}
        validate((await client.post("/v1/search", json=everything)).json(), "SearchResponse", description)
        validate((await client.get("/v1/indexes")).json(), "Indexes", description)


async def test_the_page_loads_with_all_that_it_names_and_nothing_from_elsewhere(gallery: Library) -> None:
    async with gallery.serving() as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "http" not in page.text
        for name in re.findall(r'(?:href|src)="([^":]+)"', page.text):
            part = await client.get(f"/{name}")
            assert part.status_code == 200
            assert part.headers["x-content-type-options"] == "nosniff"
            assert "http" not in part.text
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/openapi.json")).json()["openapi"]
