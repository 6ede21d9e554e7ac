"""The map of a run: when ingest writes it, and what its failure prevents."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from imgsearch.runs import tables
from imgsearch.runs.documents import Map
from imgsearch.runs.layout import image_id
from imgsearch.stage import Interrupted
from imgsearch.stores import Pointer
from tests.searcher.ingest.bench import A_KEYS, B_KEYS, CountingStore, IngestBench


def test_a_map_shows_every_image_of_a_small_run(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS)
    second = bench.write_run("r2", B_KEYS, shards=1, base="r1", kept=20)
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, [])))
    bench.ingest("r2")
    image_map = Map.from_json(bench.storage.get(second.map), second.map)
    assert (image_map.run, image_map.index, image_map.images, image_map.columns) == ("r2", "photos", 25, 5)
    assert {point["id"] for point in image_map.points} == {image_id(key) for key in [*A_KEYS, *B_KEYS]}
    assert all(0 <= point[axis] <= 1 for point in image_map.points for axis in ("x", "y"))
    with Image.open(io.BytesIO(bench.storage.get(second.sprite))) as sprite:
        assert sprite.size == (5 * image_map.tile, 5 * image_map.tile)
        assert sprite.convert("RGB").getpixel((image_map.tile // 2, image_map.tile // 2)) == pytest.approx(
            (0, 255, 0), abs=9
        )


def test_an_error_of_the_map_does_not_prevent_the_publication(
    bench: IngestBench, caplog: pytest.LogCaptureFixture
) -> None:
    folder = bench.write_run("r1", A_KEYS, digests=False)
    bench.change(folder.thumbs(0, 0), bytes.upper)
    bench.ingest("r1")
    assert bench.store.pointers()["photos"].run == "r1"
    assert bench.storage.exists(folder.report)
    assert not bench.storage.exists(folder.map)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"run r1 has no map: .*", warning)
    bench.storage.put(folder.thumbs(0, 0), bench.storage.get(folder.thumbs(0, 1)))
    bench.ingest("r1")
    assert bench.storage.exists(folder.map), "the missing map was not written"


def test_an_existing_map_is_not_written_again(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A_KEYS)
    bench.storage.put(folder.map, b"{}")
    bench.ingest("r1")
    assert not bench.storage.exists(folder.sprite)


def test_an_ingest_interrupted_at_the_map_writes_it_later(bench: IngestBench) -> None:
    folder = bench.write_run("r1", A_KEYS)

    class Stopping(CountingStore):
        def publish(self, pointer: Pointer) -> None:
            super().publish(pointer)
            bench.stopping.set()

    bench.store = Stopping()
    with pytest.raises(Interrupted):
        bench.ingest("r1")
    assert bench.store.pointers()["photos"].run == "r1"
    assert not bench.storage.exists(folder.map)
    assert not bench.storage.exists(folder.report)
    bench.stopping.clear()
    bench.ingest("r1")
    assert bench.storage.exists(folder.map)
    assert bench.storage.exists(folder.report)
