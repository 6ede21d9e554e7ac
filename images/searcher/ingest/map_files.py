"""The files of the map of an index: the positions of a sample of its images, and a sprite of their thumbnails."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from imgsearch.runs.documents import Map, Plan
from imgsearch.runs.layout import RunFolder
from imgsearch.stage import Interrupted, check_stopping
from imgsearch.storage import Storage
from imgsearch.stores import Record
from imgsearch.stores.records import thumbnail
from searcher.ingest import projection
from searcher.ingest.samples import Samples

log = logging.getLogger(__name__)

THUMBNAIL_THREADS = 8
"""Each waits for the storage most of its time."""


class MapWriter:
    """Writes the map of a run."""

    def __init__(self, storage: Storage, *, stopping: threading.Event) -> None:
        self._storage = storage
        self._stopping = stopping

    def write(self, plan: Plan, rows: int, sample: Samples) -> None:
        """Writes the sprite, then `map.json`, unless an earlier ingest has.

        Raises Interrupted, and an error of a write. Other errors are only logged: the index works without a map."""
        folder = RunFolder(plan.run)
        if self._storage.exists(folder.map):
            return
        try:
            sprite, document = self._made(plan, rows, sample)
        except Interrupted:
            raise
        except Exception as error:
            log.warning("run %s has no map: %s", plan.run, error)
            return
        self._storage.put(folder.sprite, sprite)
        self._storage.put(folder.map, document.to_json())

    def _made(self, plan: Plan, rows: int, sample: Samples) -> tuple[bytes, Map]:
        with ThreadPoolExecutor(THUMBNAIL_THREADS, "thumbnail") as pool:
            tiles = list(pool.map(self._tile, sample.records))
        check_stopping(self._stopping)
        positions = projection.positions(sample.vectors())
        check_stopping(self._stopping)
        document = Map(
            run=plan.run,
            index=plan.index,
            images=rows,
            tile=projection.TILE,
            columns=projection.columns(len(tiles)),
            points=[
                {"id": record.id, "x": round(float(x), 4), "y": round(float(y), 4)}
                for record, (x, y) in zip(sample.records, positions, strict=True)
            ],
        )
        return projection.sprite(tiles), document

    def _tile(self, record: Record) -> Image.Image:
        check_stopping(self._stopping)
        return projection.tile(self._storage.get_range(*thumbnail(record)))
