"""Runs made by the real plan, embedder and ingest, with a model and a store in memory, for tests that damage them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from embedder.job import EmbedJob
from embedder.metrics import EmbedMetrics
from embedder.plan import plan, read_plan
from imgsearch.runs.documents import Plan, Report, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.settings import IndexSettings, RunSettings, Settings
from imgsearch.sources import Source, open_source
from imgsearch.storage import Storage
from imgsearch.stores import Record
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics
from tests.fakes import FakeEncoder, InMemoryStore

PHOTOS = 8
"""With ten, the map of the index would need scikit-learn, whose import takes seconds."""
PART = 2


def photo(path: Path, seed: int) -> None:
    """A photo of a colour of its own, with a pattern, so that no two thumbnails are equal."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 255, 3) // 8 * 7 + random.integers(0, 30, (6, 8, 3))
    Image.fromarray(pixels.astype(np.uint8)).resize((40, 30)).save(path)


class Pipeline:
    """The stages of runs over a folder of photos: two shards of two parts of two photos."""

    def __init__(self, root: Path, open_photos: Callable[[str], Source] = open_source) -> None:
        self.photos = root / "photos"
        self.storage = Storage((root / "storage").as_uri())
        self.store = InMemoryStore()
        self.encoder = FakeEncoder()
        self._open_photos = open_photos

    def fill(self) -> None:
        self.photos.mkdir(parents=True)
        for number in range(PHOTOS):
            photo(self.photos / f"{number:02d}.png", number)

    def plan(self, run: str, base: str | None = None) -> Plan:
        return plan(self._settings(run, base), self.storage, self.source())

    def embed(self, run: str) -> list[ShardDone]:
        """Each shard in a process of its own."""
        planned = read_plan(self.storage, run)
        return [
            EmbedJob(
                self._settings(run, planned.base),
                storage=self.storage,
                source=self.source(),
                load_encoder=lambda: self.encoder,
                stopping=threading.Event(),
                metrics=EmbedMetrics(),
            ).run(shard)
            for shard in range(planned.shards)
        ]

    def ingest(self, run: str) -> Report:
        job = Ingest(
            run,
            storage=self.storage,
            store=self.store,
            settings=IndexSettings(),
            metrics=IngestMetrics(),
            stopping=threading.Event(),
        )
        return job.run()[0]

    def embedded_again(self) -> int:
        """The number of images that the model has seen since the last call."""
        number = sum(self.encoder.image_calls)
        self.encoder.image_calls.clear()
        return number

    def shards(self, run: str) -> dict[str, bytes]:
        """The files of all shards, without the times in done.json."""
        folder = f"{RunFolder(run).root}/shards"
        return {key: self.storage.get(key) for key in self.storage.keys(folder) if not key.endswith("done.json")}

    def records(self, run: str) -> dict[str, Record]:
        """The searchable images, by key."""
        ids = [image_id(f"{number:02d}.png") for number in range(100)]
        return {str(record.internal["key"]): record for record in self.store.get(f"photos-{run}", ids)}

    def source(self) -> Source:
        source = self._open_photos(str(self.photos))
        source.uri = "photos"  # type: ignore[misc]  # the same in every copy of the folder
        return source

    def _settings(self, run: str, base: str | None) -> Settings:
        values = RunSettings(
            id=run,
            index="photos",
            source=str(self.photos),
            model=self.encoder.model,
            base=base,
            shard_images=PHOTOS // 2,
            part_images=PART,
        )
        return Settings(run=values)
