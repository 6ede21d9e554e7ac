"""The texts of a shard, which are queries for the measurement of the recall."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embedder.job import EmbedJob
from embedder.metrics import EmbedMetrics
from embedder.plan import plan
from embedder.texts import EVERYDAY, MAX_CHARS, choose, everyday
from imgsearch.runs import texts
from imgsearch.runs.digests import digest
from imgsearch.runs.documents import ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import RunSettings, Settings
from imgsearch.sources import open_source
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from imgsearch.vectors import Vectors
from tests.fakes import FakeEncoder

FOLDER = RunFolder("r1")
TEXTS = FOLDER.texts(0)
IMAGES = 96
"""Three texts."""


class Bench:
    """A planned run over a folder of photos."""

    def __init__(self, root: Path, **run: int) -> None:
        self.source = root / "photos"
        self.storage = Storage((root / "storage").as_uri())
        self.encoder = FakeEncoder()
        self.stopping = threading.Event()
        values = RunSettings(id="r1", index="photos", source=str(self.source), model="fake/colours", part_images=40)
        self._settings = Settings(run=RunSettings(**{**vars(values), **run}))

    def write_photos(self, count: int) -> None:
        self.source.mkdir()
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(self.source / f"{number:03d}.png")

    def plan(self) -> None:
        plan(self._settings, self.storage, open_source(str(self.source)))

    def embed(self, shard: int = 0) -> ShardDone:
        return EmbedJob(
            self._settings,
            storage=self.storage,
            source=open_source(str(self.source)),
            load_encoder=lambda: self.encoder,
            stopping=self.stopping,
            metrics=EmbedMetrics(),
        ).run(shard)

    def rows(self, shard: int = 0) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = pq.read_table(
            pa.BufferReader(self.storage.get(FOLDER.texts(shard)))
        ).to_pylist()
        return rows


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded run of IMAGES photos, of which two have a text. Tests take a copy."""
    root = tmp_path_factory.mktemp("texts")
    bench = Bench(root)
    bench.write_photos(IMAGES)
    metadata = [{"file_name": "000.png", "caption": "a red wall"}, {"file_name": "095.png", "labels": ["brick"]}]
    (bench.source / "metadata.jsonl").write_text("\n".join(map(json.dumps, metadata)))
    bench.plan()
    bench.embed()
    return root


@pytest.fixture
def bench(embedded: Path, tmp_path: Path) -> Bench:
    shutil.copytree(embedded, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path)


def test_a_shard_has_its_captions_its_labels_and_everyday_captions_with_their_vectors(bench: Bench) -> None:
    rows = bench.rows()
    assert [(row["text"], row["origin"]) for row in rows] == [
        ("a red wall", "caption"),
        ("a photo of a brick", "label"),
        (next(everyday(0)), "everyday"),
    ]
    expected = bench.encoder.encode_texts([str(row["text"]) for row in rows])
    assert np.array([row["embedding"] for row in rows]) == pytest.approx(expected, abs=1e-3)
    done = ShardDone.from_json(bench.storage.get(FOLDER.done(0)), "done")
    assert done.digests["texts.parquet"] == digest(bench.storage.get(TEXTS))
    assert 0 < done.stages["texts"] < done.seconds


class StoppingEncoder(FakeEncoder):
    """Its process gets SIGTERM in the first call for texts."""

    batch = 1

    def __init__(self, stopping: threading.Event) -> None:
        super().__init__()
        self._stopping = stopping

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self._stopping.set()
        return super().encode_texts(texts)


def test_a_process_that_ends_in_the_texts_is_resumed_without_an_image(bench: Bench) -> None:
    whole = bench.storage.get(TEXTS)
    for name in (FOLDER.done(0), TEXTS):
        bench.storage.remove(name)
    bench.encoder = StoppingEncoder(bench.stopping)
    with pytest.raises(Interrupted):
        bench.embed()
    assert len(bench.encoder.text_calls) == 1
    assert not bench.storage.exists(TEXTS)
    assert not bench.storage.exists(FOLDER.done(0))
    bench.stopping.clear()
    bench.encoder = FakeEncoder()
    done = bench.embed()
    assert bench.storage.get(TEXTS) == whole
    assert done.digests["texts.parquet"] == digest(whole)
    assert bench.encoder.image_calls == []


def test_a_process_that_is_killed_after_the_texts_writes_the_same_again(bench: Bench) -> None:
    whole = bench.storage.get(TEXTS)
    bench.storage.remove(FOLDER.done(0))
    assert bench.embed().digests["texts.parquet"] == digest(whole)
    assert bench.storage.get(TEXTS) == whole


def test_the_texts_of_another_process_of_the_shard_stay(bench: Bench) -> None:
    vectors = texts.from_bytes(bench.storage.get(TEXTS), TEXTS, dim=bench.encoder.dim)
    chosen = [texts.Text(text, "everyday") for text in vectors]
    rounded = texts.to_bytes(chosen, 0.999 * np.stack([*vectors.values()]).astype(np.float32))
    bench.storage.put(TEXTS, rounded)
    bench.storage.remove(FOLDER.done(0))
    assert bench.embed().digests["texts.parquet"] == digest(rounded)
    assert bench.storage.get(TEXTS) == rounded


@pytest.mark.parametrize("data", [b"", None], ids=["empty", "missing"])
def test_damaged_texts_are_made_again_without_an_image(bench: Bench, data: bytes | None) -> None:
    whole = bench.storage.get(TEXTS)
    if data is None:
        bench.storage.remove(TEXTS)
    else:
        bench.storage.put(TEXTS, data)
    bench.storage.put(FOLDER.damaged("r1", 0), b"")
    bench.embed()
    assert bench.storage.get(TEXTS) == whole
    assert bench.encoder.image_calls == []


def test_a_shard_of_an_earlier_version_stays_as_it_is(bench: Bench) -> None:
    done = ShardDone.from_json(bench.storage.get(FOLDER.done(0)), "done")
    del done.digests["texts.parquet"]
    bench.storage.put(FOLDER.done(0), done.to_json())
    bench.storage.remove(TEXTS)
    bench.storage.put(FOLDER.damaged("r1", 0), b"")
    assert bench.embed() == done
    assert not bench.storage.exists(TEXTS)
    assert bench.encoder.text_calls == []


@pytest.mark.parametrize(("images", "texts"), [(31, 0), (32, 1), (63, 1), (64, 2)])
def test_there_is_a_text_for_every_32_images(tmp_path: Path, images: int, texts: int) -> None:
    bench = Bench(tmp_path)
    bench.write_photos(images)
    bench.plan()
    done = bench.embed()
    assert ("texts.parquet" in done.digests) == (texts > 0)
    assert len(bench.rows() if texts else []) == texts


def test_the_shards_of_a_run_have_other_everyday_captions(tmp_path: Path) -> None:
    bench = Bench(tmp_path, shard_images=32)
    bench.write_photos(64)
    bench.plan()
    for shard in range(2):
        bench.embed(shard)
    (first,), (second,) = bench.rows(0), bench.rows(1)
    assert (first["origin"], second["origin"]) == ("everyday", "everyday")
    assert first["text"] != second["text"]


METADATA = [{"caption": f"caption {number}", "labels": [f"label {number % 7}", "all"]} for number in range(50)]


def test_captions_and_labels_alternate() -> None:
    chosen = choose(METADATA, [], count=20, shard=0)
    assert [text.origin for text in chosen] == ["caption", "label"] * 8 + ["caption"] * 4
    assert {text.text for text in chosen if text.origin == "label"} == {
        "a photo of a all",
        *(f"a photo of a label {number}" for number in range(7)),
    }
    assert len({text.text for text in chosen}) == 20


def test_the_choice_is_the_same_for_the_same_shard_and_another_one_for_another() -> None:
    chosen = [
        choose(rows, [], count=10, shard=shard) for shard, rows in ((3, METADATA), (3, METADATA[::-1]), (4, METADATA))
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"captions": ["one", "two"], "title": "no"}, {"one", "two"}),
        ({"caption": 7, "title": "a title"}, {"a title"}),
        ({"class": 3, "tags": ["x"]}, {"a photo of a x"}),
        ({"caption": "", "other": "no"}, set()),
        ({"text": "x" * 1000}, {"x" * MAX_CHARS}),
    ],
)
def test_the_first_field_with_a_text_counts(metadata: dict[str, object], expected: set[str]) -> None:
    assert {text.text for text in choose([metadata], [], count=9, shard=0)} == expected


def test_a_text_occurs_once() -> None:
    rows = [{"caption": "same"}, {"caption": "same"}]
    assert [text.text for text in choose(rows, ["same", "other", "third"], count=2, shard=0)] == ["same", "other"]


def test_the_everyday_captions_are_enough_for_a_run_and_differ_between_its_shards() -> None:
    captions = EVERYDAY.read_text().splitlines()
    assert len(set(captions)) == len(captions) > texts.MOST_TEXTS
    assert all(caption == caption.strip() and 1 < len(caption.split()) < 12 for caption in captions)
    shards = [set(islice(everyday(shard * 26), 26)) for shard in range(10)]
    assert len(set().union(*shards)) == 260
    assert len(set(everyday(7_000))) == len(captions)
