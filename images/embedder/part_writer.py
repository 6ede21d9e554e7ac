"""Collects the finished images of a shard into parts, and writes each part while the next one is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from embedder.metrics import EmbedMetrics
from embedder.parts import Draft, Finished, Parts, Progress
from imgsearch import machine
from imgsearch.runs.parts import Header

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 2.0

RELEASE_IMAGES = 500
"""Freed memory goes back to the kernel after this many images. With fewer, page faults take more than 2 % of the time
of a small model; with more, a fragmented heap grows."""


class PartWriter:
    """Writes parts in a thread. At the end of its `with` block it writes the started part, too, unless an error ended
    the block."""

    def __init__(
        self,
        parts: Parts,
        progress: Progress,
        *,
        part_images: int,
        total: int,
        metrics: EmbedMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._parts = parts
        self._part_images = part_images
        self._total = total
        self._metrics = metrics
        self._clock = clock
        self._draft = Draft()
        self._pool = ThreadPoolExecutor(1, "write")
        self._writing: Future[tuple[Header, dict[str, str]]] | None = None
        self._logged = clock()
        self._seen = progress.done
        self.progress = progress
        """The parts that are written. All of them, after the `with` block."""

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                if len(self._draft):
                    self._flush()
                self._wait()
        finally:
            self._pool.shutdown()
        self._log()

    def add(self, images: list[Finished]) -> None:
        for image in images:
            self._draft.add(image)
            if len(self._draft) == self._part_images:
                self._flush()
        seen_before = self._seen
        self._seen += len(images)
        if self._seen // RELEASE_IMAGES > seen_before // RELEASE_IMAGES:
            machine.release_freed_memory()
        if self._clock() - self._logged >= PROGRESS_SECONDS:
            self._log()

    def _flush(self) -> None:
        self._wait()
        draft, self._draft = self._draft, Draft()
        self._writing = self._pool.submit(self._write, self.progress.parts, draft)

    def _write(self, part: int, draft: Draft) -> tuple[Header, dict[str, str]]:
        with self._metrics.timed("write"):
            written = self._parts.write(part, draft)
        self._metrics.written.inc(len(draft))
        return written

    def _wait(self) -> None:
        if self._writing is not None:
            self.progress = self.progress.with_part(*self._writing.result())
            self._writing = None

    def _log(self) -> None:
        self._logged = self._clock()
        log.info("embedded %d of %d", self._seen, self._total, extra={"done": self._seen, "total": self._total})
