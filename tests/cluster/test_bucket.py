"""The same with a bucket: images from it, runs in it, credentials from a Secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imgsearch.storage import Storage
from tests.cluster.conftest import in_bucket, photo_files
from tests.cluster.world import World, ids
from tests.conftest import S3


@pytest.fixture
def bucket_world(world: World, values: dict[str, Any]) -> Iterator[World]:
    """A second release in the namespace, which keeps its runs in the bucket."""
    if not S3:
        pytest.skip("IMGSEARCH_TEST_S3 names no bucket of an S3 server")
    with in_bucket(world, values, "bucket", f"{S3}/index") as new_world:
        yield new_world


def test_a_prefix_of_a_bucket_is_indexed_into_a_bucket(bucket_world: World, photos: int) -> None:
    source = Storage(f"{S3}/photos")
    for file in photo_files():
        source.put(file.name, file.read_bytes())
    completed = bucket_world.controller(
        "run-pipeline", f"{S3}/photos", "--run", "s3", "--shard-size", str(-(-photos // 4))
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    report = bucket_world.ask("report", "s3")
    assert report["images"] + report["bad"] == photos
    assert "runs/s3/report.json" in set(Storage(f"{S3}/index").keys(""))
    with bucket_world.searcher() as client:
        assert len(ids(client, "photos", "s3")) == report["images"]
        first = client.post("/v1/search", json={"text": "a cat", "k": 1}).raise_for_status().json()["results"][0]
        assert client.get(first["thumbnail"]).raise_for_status().headers["content-type"] == "image/webp"
        assert client.get(first["image"]).is_success
