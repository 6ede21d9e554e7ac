"""The routes of what ingest found out about a run, as a client sees them."""

from __future__ import annotations

import json

import httpx
import pytest

from imgsearch.runs.layout import RunFolder
from tests.searcher.library import Library, problem, wait_until
from tests.searcher.schemas import validate

pytestmark = pytest.mark.anyio

FOLDER = RunFolder("r1")
FILES = {"/v1/facets": FOLDER.facets, "/v1/map": FOLDER.map, "/v1/map/sprite": FOLDER.sprite}
"""The file behind each path."""
PATHS = list(FILES)
FACETS = {
    "index": "photos",
    "run": "r1",
    "images": 4,
    "fields": [
        {
            "field": "colour",
            "type": "text",
            "images": 4,
            "distinct": 2,
            "values": [{"value": "red", "count": 3}, {"value": "blue", "count": 1}],
            "min": None,
            "max": None,
        },
        {
            "field": "year",
            "type": "number",
            "images": 3,
            "distinct": None,
            "values": [{"value": 2020, "count": 2}, {"value": 2020.5, "count": 1}],
            "min": 2020,
            "max": 2020.5,
        },
        {
            "field": "sharp",
            "type": "bool",
            "images": 1,
            "distinct": 1,
            "values": [{"value": True, "count": 1}],
            "min": None,
            "max": None,
        },
    ],
}
MAP = {
    "index": "photos",
    "run": "r1",
    "images": 4,
    "points": [{"id": "a", "x": 0.0, "y": 1.0}, {"id": "b", "x": 0.25, "y": 0.5}],
    "tile": 48,
    "columns": 2,
}


def explain(library: Library, run: str = "r1") -> None:
    """Puts there what ingest writes."""
    folder = RunFolder(run)
    library.storage.put(folder.facets, json.dumps({**FACETS, "run": run}).encode())
    library.storage.put(folder.map, json.dumps({**MAP, "run": run}).encode())
    library.storage.put(folder.sprite, f"a WebP of {run}".encode())


@pytest.fixture
def gallery_with_facets(gallery: Library) -> Library:
    explain(gallery)
    return gallery


async def test_facets_say_what_every_field_holds(gallery_with_facets: Library) -> None:
    async with gallery_with_facets.serving() as client:
        response = await client.get("/v1/facets")
        facets = response.json()
        # This file is of an earlier version, without `whole`.
        assert [field.pop("whole") for field in facets["fields"]] == [None, None, None]
        assert facets == FACETS
        validate(response.json(), "FacetsResponse", (await client.get("/openapi.json")).json())
        assert response.json()["fields"][2]["values"][0]["value"] is True
        single = (await client.get("/v1/facets?index=photos&field=year")).json()
        assert single == {**response.json(), "fields": response.json()["fields"][1:2]}
        assert "'shape'" in problem(await client.get("/v1/facets?field=shape"), 404)
        missing = problem(await client.get("/v1/facets?index=sketches"), 404)
        assert '"sketches"' in missing
        assert "photos" in missing


async def test_a_map_names_the_sprite_that_its_points_are_tiles_of(gallery_with_facets: Library) -> None:
    async with gallery_with_facets.serving() as client:
        document = (await client.get("/v1/map")).json()
        validate(document, "MapResponse", (await client.get("/openapi.json")).json())
        assert document == {**MAP, "sprite": "/v1/map/sprite?index=photos&run=r1"}
        sprite = await client.get(document["sprite"])
    assert sprite.content == b"a WebP of r1"
    assert sprite.headers["content-type"] == "image/webp"


@pytest.mark.parametrize("path", PATHS)
async def test_a_run_without_one_says_so(gallery: Library, path: str) -> None:
    async with gallery.serving() as client:
        assert FILES[path] in problem(await client.get(path), 404)


@pytest.mark.parametrize("data", [b"{}", b"[]", b"{", b'{"fields": 1}'])
async def test_a_file_that_is_not_of_this_version_is_named(gallery: Library, data: bytes) -> None:
    gallery.storage.put(RunFolder("r1").facets, data)
    async with gallery.serving() as client:
        assert "runs/r1/facets.json" in problem(await client.get("/v1/facets"), 500)


@pytest.mark.parametrize("path", PATHS)
async def test_a_copy_is_current_until_the_next_run_and_one_of_a_run_for_ever(
    gallery_with_facets: Library, path: str
) -> None:
    async with gallery_with_facets.serving() as client:
        first = await client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        pinned = await client.get(path, params={"run": "r1"})
        assert "immutable" in pinned.headers["cache-control"]
        headers = {"If-None-Match": first.headers["etag"]}
        second = await client.get(path, headers=headers)
        assert (second.status_code, second.content, second.headers["etag"]) == (304, b"", first.headers["etag"])
        explain(gallery_with_facets, "r2")
        gallery_with_facets.publish(run="r2", previous=gallery_with_facets.store.pointers()["photos"])

        async def ask() -> httpx.Response:
            return await client.get(path, headers=headers)

        newer = await wait_until(ask, lambda response: response.status_code == 200)
        assert newer.content == first.content.replace(b"r1", b"r2")
        assert (await client.get(path, params={"run": "r1"})).content == first.content
        assert '"r0"' in problem(await client.get(path, params={"run": "r0"}), 410)


async def test_a_runs_files_are_read_once(gallery_with_facets: Library) -> None:
    async with gallery_with_facets.serving() as client:
        contents = [(await client.get(path)).content for path in PATHS]
        gallery_with_facets.storage.delete(RunFolder("r1").root)
        assert [(await client.get(path)).content for path in PATHS] == contents
