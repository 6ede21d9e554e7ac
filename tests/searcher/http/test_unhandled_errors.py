"""Exceptions without a handler: a problem with all headers, and a log line."""

from __future__ import annotations

import pytest

from imgsearch.runs.layout import image_id
from tests.searcher.library import Library, problem

pytestmark = pytest.mark.anyio

IMAGE = f"/v1/images/{image_id('red.png')}"
ORIGIN = "https://photos.example.com"


async def test_a_surprise_that_happens_in_no_route_is_a_problem_too(gallery: Library) -> None:
    def raise_error(*_: object, **__: object) -> None:
        raise RuntimeError("a surprise")

    async with gallery.serving(cors_origins=ORIGIN) as client:
        gallery.store.get = raise_error  # type: ignore[method-assign, assignment]
        response = await client.get(IMAGE, headers={"Origin": ORIGIN})
        problem(response, 500)
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.json()["request_id"]
        assert 'status="500"' in (await client.get("/metrics")).text
