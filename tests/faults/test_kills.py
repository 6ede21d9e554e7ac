"""`kill -9` at random moments: then the same command ends with the same ids, each once, and repeats at most a part."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch.part_files import PartFiles
from imgsearch.runs import parts
from imgsearch.runs.digests import digest, file_name
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import Header, PartRow
from imgsearch.settings import RunSettings, Settings, StorageSettings, StoreSettings
from imgsearch.storage import Storage
from imgsearch.stores import open_store
from searcher.table.files import TableFiles
from tests import forks
from tests.conftest import DEMO_MODEL
from tests.programs import program_env

IMAGES = 240
PART = 10
KILLS = 10
FOLDER = RunFolder("r1")
PAUSE_SECONDS = 0.0005
"""Between two looks at the files: the process needs the CPU more."""


class Run:
    """One run, stage by stage."""

    def __init__(self, root: Path, source: Path, *, part_images: int) -> None:
        self.root = root
        self.storage = Storage((root / "storage").as_uri())
        self.settings = Settings(
            run=RunSettings(id="r1", index="photos", source=str(source), model=DEMO_MODEL, part_images=part_images),
            storage=StorageSettings(uri=self.storage.uri),
            store=StoreSettings(url=f"chroma+file://{root}/chroma"),
        )

    def start(self, program: str, stage: str) -> ForkServerProcess:
        env = program_env({**self.settings.to_env(), "JOB_COMPLETION_INDEX": "0"})
        return forks.start(program, stage, env=env, output=self._log(stage), errors=self._log(stage))

    def finish(self, program: str, stage: str) -> None:
        process = self.start(program, stage)
        process.join(240)
        assert process.exitcode == 0, self._log(stage).read_text()[-3000:]

    def parts(self) -> dict[str, int]:
        """The complete parts, and the times at which they were written."""
        shard = self.root / "storage" / FOLDER.shard(0)
        return {file.name: file.stat().st_mtime_ns for file in shard.glob("part-*.parquet")}

    def ids(self) -> list[str]:
        all_ids: list[str] = []
        while self.storage.exists(name := FOLDER.part(0, len(all_ids) // self.settings.run.part_images)):
            all_ids += parts.from_bytes(self.storage.get(name), name)[0]["id"].to_pylist()
        return all_ids

    def _log(self, stage: str) -> Path:
        return self.root / f"{stage}.log"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "photos"
    folder.mkdir()
    for number in range(IMAGES):
        coarse = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 240)).save(folder / f"{number:04d}.jpg")
    return folder


@pytest.fixture(scope="module")
def chance() -> random.Random:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown where a test fails, to have the same moments again
    return random.Random(seed)


def kill_when(process: ForkServerProcess, predicate: Callable[[], bool]) -> bool:
    """Kills the process as soon as the predicate is true. Returns False if it ended before."""
    while process.is_alive():
        if predicate():
            process.kill()
            process.join()
            return True
        time.sleep(PAUSE_SECONDS)
    return False


def test_the_embedder_killed_at_ten_moments(tmp_path: Path, source: Path, chance: random.Random) -> None:
    run = Run(tmp_path, source, part_images=PART)
    run.finish("embedder", "plan")
    # At the kill, a part consists of: nothing, its thumbnails, also its bad list, or all files.
    files = ("thumbs-{:05d}.tar", "bad-{:05d}.parquet", "part-{:05d}.parquet")
    shard = tmp_path / "storage" / FOLDER.shard(0)
    kills = 0
    while kills < KILLS:
        parts = run.parts()
        assert len(parts) < IMAGES // PART, "the shard was done before ten kills"
        target = shard / chance.choice(files).format(len(parts) + chance.randrange(2))
        kills += kill_when(run.start("embedder", "embed"), target.exists)
        parts_now = run.parts()
        assert {name: parts_now[name] for name in parts} == parts, "a whole part was written again"
    run.finish("embedder", "embed")
    log = (tmp_path / "embed.log").read_text()
    assert "resuming after" in log
    ids = run.ids()
    assert len(ids) == IMAGES
    assert set(ids) == {image_id(file.name) for file in source.iterdir()}
    for file in shard.iterdir():
        kinds = ("part", "thumbs", "bad", "texts.parquet", "done.json")
        assert file.name.split("-")[0] in kinds, f"{file.name} was left behind"
    done = ShardDone.from_json(run.storage.get(FOLDER.done(0)), "done")
    assert len(PartFiles(run.storage, FOLDER, done).texts()) == IMAGES // 32


@pytest.fixture
def embedded_run(tmp_path: Path, source: Path) -> Run:
    """A run with 2 000 vectors in 40 parts, made without a model."""
    run = Run(tmp_path, source, part_images=50)
    dim, count = 64, 2000
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    header = Header(DEMO_MODEL, "f", "", dim, images=50, bad=0)
    digests: dict[str, str] = {}
    for part_number in range(count // 50):
        rows: list[PartRow] = [
            {
                "id": image_id(f"{number}"),
                "key": f"{number}",
                "etag": "",
                "embedding": vectors[number],
                "width": 1,
                "height": 1,
                "thumb_offset": 0,
                "thumb_length": 1,
                "metadata": '{"n": 1}',
            }
            for number in range(part_number * 50, part_number * 50 + 50)
        ]
        files = {
            FOLDER.thumbs(0, part_number): b"\0",
            FOLDER.bad(0, part_number): parts.bad_to_bytes([]),
            FOLDER.part(0, part_number): parts.to_bytes(rows, header),
        }
        for name, data in files.items():
            run.storage.put(name, data)
            digests[file_name(name)] = digest(data)
    document = ShardDone(0, count, 0, count // 50, DEMO_MODEL, "f", dim, 1, 1.0, digests=digests)
    run.storage.put(FOLDER.done(0), document.to_json())
    plan = Plan("r1", "photos", str(source), DEMO_MODEL, 1, count, 1, 50)
    run.storage.put(FOLDER.plan, plan.to_json())
    return run


def test_ingest_killed_at_ten_moments(embedded_run: Run, chance: random.Random) -> None:
    """The moments: after some records, by the size of Chroma's write-ahead log; and at the publication."""
    run = embedded_run
    database = run.root / "chroma" / "chroma.sqlite3"

    def grown(bytes_more: int) -> Callable[[], bool]:
        size = database.stat().st_size if database.exists() else 0
        return lambda: database.exists() and database.stat().st_size > size + bytes_more

    log = os.path.join(run.root, "ingest.log")
    kills = 0
    for _ in range(KILLS):
        kills += kill_when(run.start("searcher", "ingest"), grown(chance.choice([0, 10_000, 40_000, 80_000, 150_000])))
    assert kills >= KILLS // 2, "most processes ended before they were killed"
    kill_when(run.start("searcher", "ingest"), lambda: "published" in Path(log).read_text())
    run.finish("searcher", "ingest")
    store = open_store(run.settings.store.url)
    pointer = store.pointers()["photos"]
    assert (pointer.run, pointer.images) == ("r1", 2000)
    assert store.count(pointer.collection) == 2000
    assert store.missing(pointer.collection, [image_id(f"{number}") for number in range(2000)]) == set()
    assert store.collections() == ["photos-r1"]
    store.close()
    files = TableFiles(run.storage, run.root / "cache")
    document = files.document("r1")
    assert document is not None
    table = files.open(document)
    assert table.rows == 2000
    assert None not in table.rows_of([image_id(f"{number}") for number in range(2000)])
