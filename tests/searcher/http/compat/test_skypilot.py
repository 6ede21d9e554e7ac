"""The protocol of SkyPilot's example."""

from __future__ import annotations

import pytest

from tests.searcher.library import Library, picture, problem

pytestmark = pytest.mark.anyio


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
