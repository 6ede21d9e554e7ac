"""The evaluation of an index of five images in a plane, where every score can be computed by hand."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs import parts, tables
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import Header, PartRow
from imgsearch.settings import EvaluateSettings
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from imgsearch.stores import Pointer
from imgsearch.stores.records import record
from imgsearch.vectors import Vectors
from searcher.evaluation.figures import Evaluated, Figure, document
from searcher.evaluation.job import Evaluation
from searcher.table.files import TableFiles
from searcher.table.writer import TableWriter
from tests.fakes import FakeEncoder, InMemoryStore
from tests.searcher.table import images

ANGLES = {"a": 0, "b": 10, "c": 25, "d": 50, "e": 90}
LABELS = {"a": "cat", "b": "cat", "c": "dog", "d": "dog", "e": "cat"}
TEXTS = {"a photo of a cat": 8.0, "a photo of a dog": 16.5, "at 0": 1.0, "at 10": 40.0, "at 25": 24.0}
REMOVED_KEY = "z"
"""It is nearer to almost everything, but the update has removed it."""


def direction(angle: float) -> Vectors:
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)


class PlaneEncoder(FakeEncoder):
    """A model that knows the angle of each text."""

    dim = 2

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return np.stack([direction(TEXTS[text]) for text in texts])


class EvaluationBench:
    """A run and its update in a storage, and a store with collections of all their images."""

    def __init__(self, folder: Path, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self.storage = Storage(folder.as_uri())
        self.store = InMemoryStore()
        self.encoder = PlaneEncoder("m")
        self.stopping = threading.Event()
        self.rows = {
            key: self._row(key, {**ANGLES, REMOVED_KEY: 9}[key], metadata.get(key, {}))
            for key in (*ANGLES, REMOVED_KEY)
        }
        self._write_run("r0", ["a", "b", "c", REMOVED_KEY], base=None)
        self._write_run("r1", ["d", "e"], base="r0")
        dropped = tables.table(tables.DROPPED, [{"key": REMOVED_KEY}])
        self.storage.put(RunFolder("r1").dropped, tables.to_bytes(dropped))

    def publish(self, index: str, **angles: float) -> Pointer:
        """Fills a collection, in which the images in `moved` lie where they do not belong."""
        self.store.create(index, dim=2, vectors=100)
        records = [
            record({**row, "embedding": direction(angles[key])} if key in angles else row, run="r1", shard=0, part=0)
            for key, row in self.rows.items()
            if key != REMOVED_KEY
        ]
        self.store.add(index, records)
        model = (self.encoder.model, self.encoder.fingerprint)
        return Pointer(index, "r1", index, *model, dim=2, images=5, source="/x", published="2026-01-01")

    def write_table(self) -> None:
        """The table of r1, with clusters, and with the true vectors."""
        rows = [record(row, run="r1", shard=0, part=0) for key, row in self.rows.items() if key != REMOVED_KEY]
        writer = TableWriter(self.storage, "r1", dim=2)
        writer.add(rows)
        vectors = np.stack([direction(ANGLES[key]) for key in ANGLES])
        writer.finish(images.clustered(vectors, 2), compared=len(rows))

    def evaluate(self, pointer: Pointer, **settings: Any) -> Evaluated:
        return Evaluation(
            EvaluateSettings(**settings),
            storage=self.storage,
            store=self.store,
            tables=TableFiles(self.storage, self.folder / "cache"),
            load_encoder=lambda _: self.encoder,
            stopping=self.stopping,
        ).evaluate(pointer)

    def _row(self, key: str, angle: float, metadata: Mapping[str, Any]) -> PartRow:
        return {
            "id": image_id(key),
            "key": key,
            "etag": "",
            "embedding": direction(angle),
            "width": 4,
            "height": 3,
            "thumb_offset": 0,
            "thumb_length": 1,
            "metadata": tables.encode_metadata(metadata),
        }

    def _write_run(self, run: str, keys: Sequence[str], *, base: str | None) -> None:
        folder = RunFolder(run)
        for number, key in enumerate(keys):
            header = Header("m", "f", "", 2, images=1, bad=0)
            self.storage.put(folder.part(0, number), parts.to_bytes([self.rows[key]], header))
        self.storage.put(folder.done(0), ShardDone(0, len(keys), 0, len(keys), "m", "f", 2, 1, 1.0).to_json())
        plan = Plan(run, "i", "/x", "m", shards=1, images=len(keys), bytes=1, part_images=1, base=base)
        self.storage.put(folder.plan, plan.to_json())


@pytest.fixture
def bench(tmp_path: Path) -> EvaluationBench:
    return EvaluationBench(tmp_path, {key: {"label": label, "year": 2020} for key, label in LABELS.items()})


def mean_figures(evaluated: Evaluated, of: str) -> dict[str, float]:
    return {figure.name: round(float(np.mean([*figure.values.values()])), 4) for figure in _figures(evaluated, of)}


def best_figures(evaluated: Evaluated, of: str) -> dict[str, float]:
    return {figure.name: round(figure.at_best, 4) for figure in _figures(evaluated, of)}


def _figures(evaluated: Evaluated, of: str) -> list[Figure]:
    return [figure for figure in evaluated.figures if figure.query_kind == of]


def test_a_store_that_finds_the_nearest_has_a_recall_of_one(bench: EvaluationBench) -> None:
    evaluated = bench.evaluate(bench.publish("photos"))
    assert mean_figures(evaluated, "images") == mean_figures(evaluated, "texts") == {"recall@1": 1.0}


def test_and_one_with_a_wrong_vector_has_less(bench: EvaluationBench) -> None:
    # b is the nearest of a and of c, and of both texts.
    evaluated = bench.evaluate(bench.publish("photos", b=180))
    assert mean_figures(evaluated, "images") == {"recall@1": 3 / 5}
    assert mean_figures(evaluated, "texts") == {"recall@1": 0.0}


def test_an_index_with_clusters_is_searched_by_its_table(
    bench: EvaluationBench, caplog: pytest.LogCaptureFixture
) -> None:
    pointer = bench.publish("photos", b=180)
    bench.write_table()
    evaluated = bench.evaluate(pointer)
    assert mean_figures(evaluated, "images") == mean_figures(evaluated, "texts") == {"recall@1": 1.0}

    bench.storage.put(RunFolder("r1").table_clusters, b"damaged")
    assert mean_figures(bench.evaluate(pointer), "images") == {"recall@1": 3 / 5}
    assert "the table of run r1 cannot be read, so the store is searched" in caplog.text


def test_the_name_of_a_label_finds_its_images(bench: EvaluationBench) -> None:
    evaluated = bench.evaluate(bench.publish("photos"))
    assert evaluated.labels == "label"
    # cat: b a c d e, dog: b c a d e
    assert mean_figures(evaluated, "labels") == {
        "R@1": 0.5,
        "R@5": 1.0,
        "R@10": 1.0,
        "precision@1": 0.5,
        "precision@5": 0.5,
        "precision@10": 0.25,
    }
    assert best_figures(evaluated, "labels")["precision@10"] == 0.25
    cat, dog = evaluated.by_label
    assert cat["label"] == "cat"
    assert dog == {
        "label": "dog",
        "images": 2,
        "first_at": 2,
        "precision@1": 0.0,
        "precision@5": 0.4,
        "precision@10": 0.2,
    }


def test_images_find_those_with_their_label(bench: EvaluationBench) -> None:
    evaluated = bench.evaluate(bench.publish("photos"))
    # a: b, b: a, c: b, d: c, e: d
    assert mean_figures(evaluated, "neighbours") == {"precision@1": 0.6, "precision@5": 0.32, "precision@10": 0.16}
    assert best_figures(evaluated, "neighbours") == {"precision@1": 1.0, "precision@5": 0.32, "precision@10": 0.16}


def test_an_image_may_have_several_labels_or_none(tmp_path: Path) -> None:
    bench = EvaluationBench(tmp_path, {"a": {"tags": ["cat", "dog"]}, "b": {"tags": ["dog"]}, "e": {"tags": ["cat"]}})
    evaluated = bench.evaluate(bench.publish("photos"))
    assert evaluated.labels == "tags"
    # a: b and e are two others; b: a; e: a. c and d are no queries.
    assert mean_figures(evaluated, "neighbours")["precision@5"] == round((2 + 1 + 1) / 5 / 3, 4)
    assert best_figures(evaluated, "neighbours") == {"precision@1": 1.0, "precision@5": 0.2667, "precision@10": 0.1333}


def test_classes_that_are_numbers_are_no_texts(tmp_path: Path) -> None:
    bench = EvaluationBench(tmp_path, {key: {"label": len(label)} for key, label in LABELS.items()})
    evaluated = bench.evaluate(bench.publish("photos"))
    assert mean_figures(evaluated, "neighbours")["precision@1"] == 1.0
    assert mean_figures(evaluated, "labels") == mean_figures(evaluated, "texts") == {}


def test_captions_find_their_image(tmp_path: Path) -> None:
    captions = {"a": {"caption": "at 0"}, "b": {"caption": ["at 10", "unused"]}, "c": {"caption": "at 25"}, "d": {}}
    bench = EvaluationBench(tmp_path, captions)
    evaluated = bench.evaluate(bench.publish("photos"))
    assert evaluated.captions == "caption"
    # "at 10" is at 40°, where d, c, b are in this order
    assert mean_figures(evaluated, "captions") == {"R@1": round(2 / 3, 4), "R@5": 1.0, "R@10": 1.0}
    assert mean_figures(evaluated, "texts") == {"recall@1": 1.0}


def test_fields_may_be_named(tmp_path: Path) -> None:
    bench = EvaluationBench(tmp_path, {"a": {"label": "x", "animal": "cat", "said": "at 0"}, "b": {"animal": "cat"}})
    evaluated = bench.evaluate(bench.publish("photos"), labels="animal", captions="said")
    assert [row["label"] for row in evaluated.by_label] == ["cat"]
    assert mean_figures(evaluated, "captions")["R@1"] == 1.0
    with pytest.raises(UsageError, match=r"photos .*'no'.*: animal, label, said$"):
        bench.evaluate(bench.publish("photos"), labels="no")


def test_without_labels_and_captions_no_model_is_needed(tmp_path: Path) -> None:
    bench = EvaluationBench(tmp_path, {})
    bench.encoder = PlaneEncoder("m", fingerprint="other")
    pointer = bench.publish("photos")
    bench.encoder = PlaneEncoder("m", fingerprint="another")
    evaluated = bench.evaluate(pointer)
    assert {figure.query_kind for figure in evaluated.figures} == {"images"}


def test_other_weights_than_the_indexs_are_refused(bench: EvaluationBench) -> None:
    pointer = bench.publish("photos")
    bench.encoder = PlaneEncoder("m", fingerprint="other")
    with pytest.raises(PermanentError, match=rf"\(other\).* r1 \({pointer.fingerprint[:12]}\)"):
        bench.evaluate(pointer)


def test_a_sample_is_the_same_in_every_index(bench: EvaluationBench) -> None:
    first = bench.evaluate(bench.publish("photos"), queries=2)
    second = bench.evaluate(bench.publish("other", b=180), queries=2)
    names = [{tuple(figure.values) for figure in evaluated.figures} for evaluated in (first, second)]
    assert names[0] == names[1]
    assert {len(queries) for queries in names[0]} == {2}


def test_two_indexes_stand_side_by_side_with_the_difference(bench: EvaluationBench) -> None:
    evaluations = [bench.evaluate(bench.publish("photos")), bench.evaluate(bench.publish("other", b=180))]
    figures = document(evaluations)["figures"]
    recall = next(figure for figure in figures if (figure["of"], figure["figure"]) == ("images", "recall@1"))
    assert [estimate["value"] for estimate in recall["indexes"]] == [1.0, 0.6]
    assert recall["difference"]["value"] == -0.4
    assert recall["difference"]["queries"] == 5
    assert recall["difference"]["low"] < -0.4 < recall["difference"]["high"] <= 0.0
    single = document(evaluations[:1])
    assert single["figures"][0]["difference"] is None
    assert [index["index"] for index in single["indexes"]] == ["photos"]


def test_it_stops_at_sigterm(bench: EvaluationBench) -> None:
    bench.stopping.set()
    with pytest.raises(Interrupted):
        bench.evaluate(bench.publish("photos"))
