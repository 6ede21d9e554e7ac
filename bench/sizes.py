"""Memory and disk of a million images by the dimension of the model, and the cost of the plan by the keys."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from bench import filters, ingest, vectors
from bench.million import Server, chroma, megabytes
from bench.results import Figure
from bench.worker import Worker
from embedder.plan import plan
from imgsearch.settings import RunSettings, Settings
from imgsearch.sources import Item, Source
from imgsearch.sources.values import Metadata
from imgsearch.storage import Storage
from imgsearch.stores.chroma import ChromaStore

TITLE = "Sizes"
METHOD = """\
60 000 images of *Filters* (four fields of metadata, no thumbnails) in a Chroma server, by the dimension of their
vectors. Each figure is told for a million. docs/scale.md has the sizes that follow.

- **Memory of Chroma** is what its process takes more than with an index of 12 000 images: after the ingest, and after a
  restart with a search. The kernel keeps files of Chroma in memory, too, where it has room.
- **Vectors and metadata** are the parts in the storage. **The table** answers filters: the search server maps it.
- **The plan** lists a source that has nothing but keys, in shards of 10 000 images."""

FIRST, RUN = "first", "sizes"
"""The figures are of the second run: the first one makes Chroma take what does not depend on the images."""
DIMS = (256, 512, 768, 1_280)
IMAGES = 60_000
"""More than chroma_graphs has the small graph for."""
KEYS = (1_000_000, 10_000_000)


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    dims, images, keys = (DIMS[:1], 4_000, (10_000,)) if quick else (DIMS, IMAGES, KEYS)
    tables: dict[str, list[Figure]] = {"A million images": [], "The plan": []}
    for dim in dims:
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            tables["A million images"] += _sizes(Path(folder), dim, images)
    for count in keys:
        with tempfile.TemporaryDirectory(dir=cache) as folder, Worker(planned, folder, count) as measured:
            tables["The plan"] += measured()
    return tables


def _sizes(folder: Path, dim: int, images: int) -> list[Figure]:
    storage = Storage(f"{folder.as_uri()}/runs")
    with Worker(written, storage.uri, dim, {FIRST: images // 5, RUN: images}):
        pass
    with chroma(folder) as server:
        with Worker(ingested, storage.uri, server.port) as ingests:
            ingests(FIRST)
            before, disk_before = _memory(server), server.disk_megabytes
        with Worker(ingested, storage.uri, server.port) as ingests:
            own = ingests(RUN)
            filled, disk = _memory(server) - before, server.disk_megabytes - disk_before
    with chroma(folder) as server, Worker(searched, server.port, dim) as searches:
        searches(FIRST)
        before = _memory(server)
        searches(RUN)
        loaded = _memory(server) - before
    files = list(storage.entries(f"runs/{RUN}"))

    def stored(part: str) -> float:
        return sum(file.size for file in files if part in file.key) / 1e6

    case, scale = f"{dim:,} dimensions", 1e6 / images
    return [
        Figure(case, "memory of Chroma, MB", round(filled * scale)),
        Figure(case, "after a restart, MB", round(loaded * scale)),
        Figure(case, "files of Chroma, MB", round(disk * scale)),
        Figure(case, "vectors and metadata, MB", round(stored("/part-") * scale)),
        Figure(case, "the table, MB", round(stored("/table/") * scale)),
        Figure(case, "memory of ingest (not for a million), MB", own),
    ]


def written(storage: str, dim: int, runs: Mapping[str, int]) -> Callable[[], None]:
    """Writes embedded runs with these numbers of images."""
    for run, images in runs.items():
        filters.write(filters.make(images, dim), Storage(storage), run, vectors.Origin(dim=dim))
    return lambda: None


def ingested(storage: str, port: int) -> Callable[[str], float]:
    """Returns a function that ingests a run: the memory of the process in MB."""

    def run(name: str) -> float:
        ingest.ingest(storage, _url(port), name)
        return megabytes("self", "VmHWM")

    return run


def searched(port: int, dim: int) -> Callable[[str], None]:
    """Returns a function that searches an index once."""
    store = ChromaStore(_url(port))

    def run(name: str) -> None:
        store.nearest(store.pointers()[name].collection, np.eye(1, dim, dtype=np.float32), k=10)

    return run


class Keys:
    """A Source (see imgsearch.sources) to plan: it has keys, and no images to read."""

    uri = "bench://keys"

    def __init__(self, count: int) -> None:
        self._count = count
        self.skipped: Counter[str] = Counter()

    def items(self) -> Iterator[Item]:
        for number in range(self._count):
            yield Item(f"{number % 1_000:03}/{number:09}.jpg", 100_000 + number % 1_000, f"{number:032x}")

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        return iter(())

    def image_keys(self, item: Item) -> Iterator[str]:
        yield item.key


def planned(folder: str, keys: int) -> Callable[[], list[Figure]]:
    """Returns a function that plans so many keys."""

    def run() -> list[Figure]:
        storage = Storage(f"{Path(folder).as_uri()}/runs")
        start = time.perf_counter()
        plan(
            Settings(run=RunSettings(id=RUN, index=RUN, source=Keys.uri, model="none")),
            storage,
            cast(Source, Keys(keys)),
        )
        seconds = time.perf_counter() - start
        files = list(storage.entries(f"runs/{RUN}"))
        case = f"{keys:,} keys"
        return [
            Figure(case, "seconds", round(seconds, 1)),
            Figure(case, "memory, MB", megabytes("self", "VmHWM")),
            Figure(case, "objects", len(files)),
            Figure(case, "MB in the storage", round(sum(file.size for file in files) / 1e6)),
        ]

    return run


def _memory(server: Server) -> float:
    return megabytes(server.pid, "VmRSS")


def _url(port: int) -> str:
    return f"chroma+http://127.0.0.1:{port}"
