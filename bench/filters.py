"""Filtered searches by the table of a run: their time and recall, beside Chroma's own `where`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import graphs, ingest, vectors
from bench.results import Figure
from bench.worker import Worker
from embedder.parts import Row
from imgsearch.runs.layout import image_id
from imgsearch.storage import Storage
from imgsearch.stores import Neighbour, Pointer
from imgsearch.stores.chroma import ChromaStore
from imgsearch.stores.filters import Filter, Joined, parse
from imgsearch.vectors import Vectors
from searcher.search.filtered import filtered, nearest_of
from searcher.search.ranking import FIRST_LEVEL, candidates
from searcher.table.files import TableFiles
from searcher.table.reader import RunTable

TITLE = "Filters"
METHOD = """\
Searches for the first 10 images, one after the other, on an embedded Chroma and the table of the run.
The vectors and the queries for texts are those of *Graphs*; ingest chooses the candidates of a search by 60 other texts
of them. A case is the share of the images that pass the filter.

**Without a filter**: Chroma's default search requests 10 neighbours. **Ours** is that of the search server: of the
clusters of the table, if ingest has chosen them, or of the store with the candidates of the index.

**By the table** is what the search server does for the first page, with the records of its images. **Chroma's
`where`** is one search for 11 images with the filter. Recall is that of the first 10 images against exact search among
the images that pass.

A **correlated** filter keeps the images of the kind that is the nearest to the query, an **anti-correlated** one those
of the kind that is the farthest from it. There are ten kinds: each image is of the kind of the nearest of ten images.
"""

RUN = "bench"
DRAWS = 10_000
KINDS = 10
K = 10
RECALL = 0.99
QUERIES = 40
WHERE_QUERIES = 8
"""Of Chroma's `where`, which takes up to seconds."""
Search = Callable[[Vectors, Filter | None], list[Neighbour]]
"""The neighbours of one query (1, dim) that pass the filter."""


@dataclass(frozen=True)
class Case:
    """A filter for each query."""

    name: str
    filters: Sequence[Filter | None]


@dataclass(frozen=True)
class Data:
    """Images with metadata, and queries."""

    vectors: Vectors
    metadata: Sequence[Mapping[str, Any]]
    queries: Mapping[str, Vectors]
    """By kind. Ingest knows none of them."""
    run_texts: Vectors
    """Other texts, which the run has."""
    cases: Sequence[Case]
    masks: dict[Filter | None, NDArray[np.bool_]] = field(default_factory=dict)

    def passing(self, where: Filter | None) -> NDArray[np.bool_]:
        """Whether each image passes a filter."""
        if where not in self.masks:
            passing = [where is None or _passes(metadata, where) for metadata in self.metadata]
            self.masks[where] = np.array(passing)
        return self.masks[where]


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    tables: dict[str, list[Figure]] = {}
    for size in (4_000,) if quick else (20_000, 100_000):
        with tempfile.TemporaryDirectory(dir=cache) as scratch, Worker(searches, size, scratch) as measured:
            for heading, figures in measured().items():
                tables.setdefault(heading, []).extend(figures)
    return tables


def searches(size: int, scratch: str) -> Callable[[], dict[str, list[Figure]]]:
    """Returns a function that measures all cases for this number of images."""
    data = make(size, graphs.DIM)
    storage, url = Storage(f"{Path(scratch).as_uri()}/runs"), f"chroma+{Path(scratch).as_uri()}/store"
    write(data, storage, RUN, vectors.Origin(dim=graphs.DIM))
    ingest.ingest(storage.uri, url, RUN)

    def run() -> dict[str, list[Figure]]:
        start = time.perf_counter()
        table = open_table(storage, RUN, Path(scratch))
        opened = time.perf_counter() - start
        bytes = sum(entry.size for entry in storage.entries(f"runs/{RUN}/table"))
        case = f"{size:,} images"
        return {
            "Without a filter": compared_searches(data, table, ChromaStore(url), RUN),
            "With filters": measured_cases(data, table, ChromaStore(url), RUN),
            "The table": [
                Figure(case, "opened, s", round(opened, 2)),
                Figure(case, "MB on disk for a million images", round(bytes / size)),
                *_costs(case, data, table, ChromaStore(url)),
            ],
        }

    return run


def write(data: Data, storage: Storage, run: str, origin: vectors.Origin) -> None:
    """Writes the embedded run of these images."""
    rows = (
        Row(_key(number), "", dict(metadata), vector, 500, 375, b"\0")
        for number, (metadata, vector) in enumerate(zip(data.metadata, data.vectors, strict=True))
    )
    vectors.write(storage, run, len(data.vectors), origin, rows, text_vectors=data.run_texts)


def open_table(storage: Storage, run: str, cache: Path) -> RunTable:
    """The table that ingest has written of the run."""
    files = TableFiles(storage, cache)
    document = files.document(run)
    assert document is not None
    return files.open(document)


def compared_searches(data: Data, table: RunTable, store: ChromaStore, run: str) -> list[Figure]:
    """Searches for texts without a filter: of the store by Chroma's default, and with the candidates of the index; and
    ours."""
    pointer = store.pointers()[run]

    def of_store(k: int, query: Vectors, _: Filter | None) -> list[Neighbour]:
        return store.nearest(pointer.collection, query, k=k)[0][:K]

    def ours(query: Vectors, _: Filter | None) -> list[Neighbour]:
        return _unfiltered(query, table, store, pointer)[:K]

    figures, times = [], {}
    searches: dict[str, Search] = {
        "Chroma's default search": partial(of_store, K),
        "Chroma with the candidates of the index": partial(of_store, pointer.candidates),
        "ours": ours,
    }
    size = f"{len(data.vectors):,} images"
    for name, search_one in searches.items():
        ms, share = timed(search_one, data, Case("", [None] * QUERIES), QUERIES)
        times[name] = ms
        least = RECALL if name == "ours" else None
        figures += [
            Figure(f"{size}, {name}", "p50 ms", ms),
            Figure(f"{size}, {name}", "recall@10 of texts", share, at_least=least),
        ]
    ratio = times["ours"] / times["Chroma's default search"]
    return [*figures, Figure(f"{size}, ours", "÷ the time of the default", round(ratio, 2), at_most=4)]


def measured_cases(data: Data, table: RunTable, store: ChromaStore, run: str) -> list[Figure]:
    """Time and recall of all cases, with the candidates of the published run."""
    pointer = store.pointers()[run]
    collection, first = pointer.collection, pointer.candidates
    by_nearest = nearest_of(
        table, lambda queries, k: store.nearest(collection, queries, k=k), candidates=pointer.candidates
    )

    def by_table(query: Vectors, where: Filter | None) -> list[Neighbour]:
        if where is None:
            found = _unfiltered(query, table, store, pointer)
        else:
            (found,) = filtered(table, query, where, by_nearest, k=FIRST_LEVEL)
        table.get([neighbour.id for neighbour in found[:K]])
        return found[:K]

    def by_where(query: Vectors, where: Filter | None) -> list[Neighbour]:
        (hits,) = store.search(collection, query, k=K + 1, where=where)
        return [Neighbour(hit.id, hit.score) for hit in hits[:K]]

    size = f"{len(data.vectors):,} images"
    everything = Case("", [None] * QUERIES)
    without, recall = timed(by_table, data, everything, QUERIES)
    figures = [
        Figure(f"{size}, no filter", "by the table, p50 ms", without),
        Figure(f"{size}, no filter", "recall@10", recall),
        Figure(f"{size}, no filter", "candidates", first),
        Figure(f"{size}, no filter", "rows compared", table.compared),
    ]
    for case in data.cases:
        name = f"{size}, {case.name}"
        ms, recall = timed(by_table, data, case, QUERIES)
        figures.append(Figure(name, "by the table, p50 ms", ms, at_most=max(60.0, round(5 * without, 1))))
        figures.append(Figure(name, "recall@10", recall, at_least=RECALL))
        ms, recall = timed(by_where, data, case, WHERE_QUERIES)
        figures.append(Figure(name, "Chroma's `where`, p50 ms", ms))
        figures.append(Figure(name, "its recall@10", recall))
    return figures


def _unfiltered(query: Vectors, table: RunTable, store: ChromaStore, pointer: Pointer) -> list[Neighbour]:
    """The first level of a search without a filter, as the search server has it."""
    if table.compared:
        return table.nearest(query, FIRST_LEVEL, compared=table.compared)[0]
    return store.nearest(pointer.collection, query, k=candidates(FIRST_LEVEL, pointer.candidates))[0]


def timed(search: Search, data: Data, case: Case, queries: int) -> tuple[float, float]:
    """The median of the milliseconds of one search, and the recall@10."""
    times, found = [], []
    for query, where in zip(data.queries["texts"][:queries, None], case.filters, strict=False):
        start = time.perf_counter()
        found.append([neighbour.id for neighbour in search(query, where)])
        times.append((time.perf_counter() - start) * 1_000)
    recalls = [
        _recall(ids, data, query, data.passing(where))
        for ids, query, where in zip(found, data.queries["texts"][:queries], case.filters, strict=False)
    ]
    return round(float(np.median(times)), 2), round(float(np.mean(recalls)), 4)


def _recall(ids: Sequence[str], data: Data, query: NDArray[np.float32], passing: NDArray[np.bool_]) -> float:
    """Against the exact search among the images that pass; 1 where none does and none is found."""
    scores = np.where(passing, data.vectors @ query, -np.inf)
    best = {id_of(row) for row in np.argsort(-scores)[: min(K, int(passing.sum()))]}
    return len(best & set(ids)) / len(best) if best else float(not ids)


def _passes(metadata: Mapping[str, Any], where: Filter) -> bool:
    """For the filters of the cases."""
    if isinstance(where, Joined):
        return all(_passes(metadata, part) for part in where.parts)
    value = metadata[where.field]
    return bool(value < where.value) if where.operator == "lt" else bool(value == where.value)


def _costs(case: str, data: Data, table: RunTable, store: ChromaStore) -> list[Figure]:
    """SEARCH and CANDIDATE of table/costs.py, in the CPU time of the exact search of one row."""
    collection = store.pointers()[RUN].collection
    few, many = 101, 2_000
    rows = np.arange(0, table.rows, 2)

    def median(call: Callable[[Vectors], object]) -> float:
        times = []
        for query in data.queries["texts"][:QUERIES, None]:
            start = time.process_time()
            call(query)
            times.append(time.process_time() - start)
        return float(np.median(times)) * 1e6

    def searched(query: Vectors, k: int) -> object:
        (found,) = store.nearest(collection, query, k=k)
        return table.rows_of([neighbour.id for neighbour in found])

    row = median(lambda query: table.exact(query, rows, k=few)) / len(rows)
    first = median(partial(searched, k=few))
    candidate = (median(partial(searched, k=many)) - first) / (many - few)
    return [
        Figure(case, "exact search, µs of CPU time a row", round(row, 3)),
        Figure(case, "search of the store, in rows", round(first / row)),
        Figure(case, "one more candidate, in rows", round(candidate / row, 1)),
    ]


def make(size: int, dim: int) -> Data:
    """Images, always the same ones."""
    images, queries = graphs.data(size, dim)
    images = images.astype(np.float16).astype(np.float32)  # as the parts of a run have them
    random = np.random.default_rng(1)
    draws = random.integers(DRAWS, size=(3, size))
    kinds = images[random.choice(size, KINDS, replace=False)]
    kind = np.argmax(images @ kinds.T, axis=1)
    metadata = [
        {
            "draw": int(draws[0, row]),
            "other": int(draws[1, row]),
            "year": 2000 + int(draws[2, row]) % 25,
            "kind": f"kind {kind[row]}",
        }
        for row in range(size)
    ]
    texts = queries["texts"][:QUERIES]
    # By the nearest image: the texts themselves lie off all images.
    order = np.argsort(images[np.argmax(texts @ images.T, axis=1)] @ kinds.T, axis=1)

    def same(name: str, where: Mapping[str, Any]) -> Case:
        return Case(name, [parse(where)] * QUERIES)

    cases = [
        same("50 %", {"draw": {"$lt": DRAWS // 2}}),
        same("12 %", {"year": {"$lt": 2003}}),
        same("4 %", {"year": 2003}),
        same("0.05 %", {"draw": {"$lt": DRAWS // 2000}}),
        same("0.01 %", {"draw": 7}),
        same("an AND of 4 %", {"$and": [{"draw": {"$lt": DRAWS // 5}}, {"other": {"$lt": DRAWS // 5}}]}),
        same("an AND of 1 %", {"$and": [{"draw": {"$lt": DRAWS // 10}}, {"other": {"$lt": DRAWS // 10}}]}),
        Case("correlated, about 10 %", [parse({"kind": f"kind {kinds[-1]}"}) for kinds in order]),
        Case("anti-correlated, about 10 %", [parse({"kind": f"kind {kinds[0]}"}) for kinds in order]),
    ]
    return Data(images, metadata, {**queries, "texts": texts}, queries["texts"][QUERIES:], cases)


def id_of(row: int) -> str:
    """The id of an image."""
    return image_id(_key(row))


def _key(number: int) -> str:
    return f"{number:08d}.jpg"
