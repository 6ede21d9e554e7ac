"""Speed of ingest, compared with a bare loop over Chroma's own `add`."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import vectors
from bench.results import Figure
from bench.worker import Worker
from imgsearch.settings import IndexSettings
from imgsearch.storage import Storage
from imgsearch.stores.chroma import ChromaStore
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from imgsearch.vectors import Vectors

TITLE = "Ingest"
METHOD = """\
Vectors per second (512 dimensions, in clusters, with two fields of metadata and our own fields) into a fresh, embedded
Chroma.

- **Ours** is the whole `Ingest`: it reads the Parquet parts, converts, adds, verifies twice (count and sampled
  searches, before and after a restart of the reader), publishes and reports.
- **The bare loop** calls `collection.add` with the same ids, vectors and metadata from memory, on a collection with the
  same configuration, with the fastest of the tested batch sizes.
- **Again** is the same `Ingest` a second time, with all vectors present."""

RUN = "bench"
BATCHES = (500, 1_000, 2_000, 5_000)


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    count, probe, rounds = (4_000, 2_000, 1) if quick else (40_000, 8_000, 3)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        runs = f"{Path(scratch).as_uri()}/runs"
        vectors.write(Storage(runs), RUN, count, vectors.Origin())
        with Worker(bare, runs) as bare_loop, Worker(ours, runs) as product:
            rates = {batch: probe / bare_loop(batch, probe, scratch) for batch in BATCHES}
            best = max(rates, key=rates.__getitem__)
            pairs = [(bare_loop(best, count, scratch), *product(scratch)) for _ in range(rounds)]
    case = f"{count:,} vectors"
    return {
        "": [
            Figure.median(case, "ours, vectors/s", [count / first for _, first, _ in pairs]),
            Figure.median(case, "bare loop, vectors/s", [count / loop for loop, _, _ in pairs]),
            Figure.median(case, "ours ÷ bare loop", [loop / first for loop, first, _ in pairs], at_least=0.95),
            Figure.median(
                case, "again, × faster than the first", [first / again for _, first, again in pairs], at_least=5
            ),
        ],
        f"The bare loop's batch size, by its vectors/s over {probe:,}": [
            Figure("bare loop", f"{batch:,}", round(rate)) for batch, rate in rates.items()
        ],
    }


def bare_loop(
    client: ClientAPI, ids: Sequence[str], matrix: Vectors, metadatas: Sequence[dict[str, Any]], *, batch: int
) -> float:
    """The seconds in which Chroma's own `add` fills a new collection, which has Chroma's default graph."""
    collection = client.create_collection("bench", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)
    start = time.perf_counter()
    for first in range(0, len(ids), batch):
        part = slice(first, first + batch)
        collection.add(ids=[*ids[part]], embeddings=matrix[part], metadatas=[*metadatas[part]])
    return time.perf_counter() - start


def bare(runs: str) -> Callable[[int, int, str], float]:
    """Returns a function that adds the first `count` vectors with Chroma's own `add`, and returns its seconds."""
    import chromadb
    import numpy as np
    from chromadb.config import Settings

    records = vectors.records(Storage(runs), RUN)
    ids = [record.id for record in records]
    matrix = np.asarray([record.vector for record in records])
    metadatas = [dict(record.metadata) for record in records]

    def run(batch: int, count: int, scratch: str) -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
            seconds = bare_loop(client, ids[:count], matrix[:count], metadatas[:count], batch=batch)
            client.close()
        return seconds

    return run


def ours(runs: str) -> Callable[[str], tuple[float, float]]:
    """Returns a function that returns the seconds of an ingest, and of the same ingest again."""

    def run(scratch: str) -> tuple[float, float]:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            url = f"chroma+{Path(folder).as_uri()}"
            return ingest(runs, url), ingest(runs, url)

    return run


def ingest(runs: str, url: str, run: str = RUN, metrics: IngestMetrics | None = None) -> float:
    """The seconds of one ingest, with the opening of the store."""
    start = time.perf_counter()
    Ingest(
        run,
        storage=Storage(runs),
        store=ChromaStore(url),
        settings=IndexSettings(),
        metrics=metrics or IngestMetrics(),
        stopping=threading.Event(),
    ).run()
    return time.perf_counter() - start
