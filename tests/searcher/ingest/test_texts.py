"""Ingest measures the recall of texts whose vectors the embedder has written."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.errors import PermanentError
from imgsearch.runs import tables
from imgsearch.runs.layout import image_id
from imgsearch.vectors import Vectors
from searcher.ingest.run_reader import RunReader
from tests.searcher.ingest.bench import A_KEYS, IngestBench, vector


def texts_of(*names: str) -> dict[str, Vectors]:
    """Texts with vectors that are no image's."""
    return {name: vector(f"text {name}") for name in names}


def nearest(text: Vectors) -> list[str]:
    """The ids of A_KEYS, the nearest first."""
    scores = [float(vector(key) @ text) for key in A_KEYS]
    return [image_id(A_KEYS[position]) for position in np.argsort(scores)[::-1]]


def recall(bench: IngestBench, run: str) -> dict[str, tuple[float, float]]:
    """Mean and worst recall@10 by kind."""
    return {figure["queries"]: (figure["mean"], figure["worst"]) for figure in bench.ingest(run).recall}


def test_texts_of_all_shards_are_measured(bench: IngestBench) -> None:
    texts = texts_of("one", "two", "three")
    bench.write_run("r1", A_KEYS, texts=texts)
    assert recall(bench, "r1")["texts"] == (1.0, 1.0)


def test_a_text_far_from_all_images_is_measured_by_the_images_nearest_to_it(bench: IngestBench) -> None:
    far = -np.mean([vector(key) for key in A_KEYS], axis=0)
    assert max(float(vector(key) @ far) for key in A_KEYS) < 0.5 * float(np.linalg.norm(far))
    bench.write_run("r1", A_KEYS, texts={"far": far.astype(np.float32)})
    bench.store.unfound_ids = set(nearest(far)[:4])
    measured = recall(bench, "r1")
    assert measured["texts"] == (0.6, 0.6)
    assert measured["images"] != measured["texts"]
    pointer = bench.store.pointers()["photos"]
    assert [figure["mean"] for figure in pointer.recall if figure["queries"] == "texts"] == [0.6]


def test_an_update_is_measured_with_the_texts_of_its_base_too(bench: IngestBench) -> None:
    texts = texts_of("one", "two")
    bench.write_run("r1", A_KEYS, texts={"one": texts["one"]})
    bench.ingest("r1")
    second = bench.write_run("r2", ["c1"], shards=1, base="r1", kept=20, texts={"two": texts["two"]})
    bench.storage.put(second.dropped, tables.to_bytes(tables.table(tables.DROPPED, [])))
    runs = RunReader(bench.storage)
    vectors = runs.texts([*runs.shards(runs.plan("r2"))], 256)
    assert sorted(vectors.tolist()) == sorted(np.float16([texts["one"], texts["two"]]).astype(np.float32).tolist())
    assert recall(bench, "r2")["texts"] == (1.0, 1.0)


def test_of_many_texts_some_are_chosen_each_once_and_always_the_same(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS, shards=3, texts=texts_of(*map(str, range(30))))
    bench.write_run("r2", A_KEYS, shards=2, texts=texts_of(*map(str, range(29, -1, -1))))
    runs = RunReader(bench.storage)
    first, again = (runs.texts([*runs.shards(runs.plan(run))], 10) for run in ("r1", "r2"))
    assert first.shape == (10, 8)
    assert first.tolist() == again.tolist()
    assert len(np.unique(first, axis=0)) == 10


@pytest.mark.parametrize("digests", [True, False], ids=["few images", "an earlier version"])
def test_a_run_without_texts_is_measured_without_them(bench: IngestBench, digests: bool) -> None:
    bench.write_run("r1", A_KEYS, digests=digests)
    assert recall(bench, "r1").keys() == {"images", "changed images"}


@pytest.mark.parametrize("damage", [lambda data: data[:-1], None], ids=["cut", "missing"])
def test_damaged_texts_are_found_before_anything_is_stored(bench: IngestBench, damage: object) -> None:
    folder = bench.write_run("r1", A_KEYS, texts=texts_of("one", "two"))
    name = folder.texts(1)
    if callable(damage):
        bench.change(name, damage)
    else:
        bench.storage.remove(name)
    with pytest.raises(PermanentError, match=r"00001/texts\.parquet .*give the same command again, .*repairs shard 1"):
        bench.ingest("r1")
    assert bench.storage.exists(folder.damaged("r1", 1))
    assert bench.store.added_ids == []
    with pytest.raises(PermanentError, match=r"00001/texts\.parquet"):
        RunReader(bench.storage).check("r1")


def test_a_repeated_ingest_replaces_the_recall_of_the_pointer_and_nothing_else(bench: IngestBench) -> None:
    text = texts_of("one")
    bench.write_run("r0", A_KEYS)
    bench.ingest("r0")
    bench.write_run("r1", A_KEYS, texts=text)
    report = bench.ingest("r1")
    before = bench.store.pointers()["photos"]
    assert before.recall == report.recall
    bench.store.unfound_ids = set(nearest(text["one"])[:1])
    again = bench.ingest("r1", year=2027)
    after = bench.store.pointers()["photos"]
    assert after.recall == again.recall != report.recall
    assert (after.run, after.published, after.previous) == (before.run, before.published, before.previous)
