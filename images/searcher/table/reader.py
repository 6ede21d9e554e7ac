"""The table of a run in memory: its rows by filter and by id, exact search among rows, and records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgsearch import machine
from imgsearch.runs.documents import Table
from imgsearch.stores import Neighbour, Record
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vector, Vectors
from searcher.table import columns, half_floats, matching
from searcher.table.clusters import Clusters
from searcher.table.columns import Texts, id_hash
from searcher.table.matching import Mask
from searcher.table.values import BatchValues

Rows = NDArray[np.int64]
"""Numbers of rows, ascending."""


PARALLEL_SCORES = 8_192
"""From so many on, an exact search uses all cores: it takes milliseconds, and a thread starts in a tenth of one."""
SAMPLED = 64
"""The fewest of the nearest images in a sample of all rows."""
SCORES_IN_MEMORY = 2**25
"""128 MiB: a batch of queries among millions of rows is searched in parts."""


def sample_step(number: int, k: int) -> int:
    """One of so many rows is in a sample that shows the score of the rank `number`, if k of them pass a filter.

    With k rows above this score, the sample is as exact as the number of those that pass is certain. Both together
    exceed the slack of the plan (filter_plan.py) in 2 of 100 searches."""
    return max(1, number // max(SAMPLED, k))


class RunTable:
    """A table whose files are mapped into memory. Any thread may call.

    For a million rows, it has 12 MB of its own: the hashes of the ids in order, and their rows. The rest is pages of
    the files, which the system reads as they are needed, and may drop."""

    def __init__(
        self,
        document: Table,
        files: Sequence[Path],
        clusters: Path | None = None,
        *,
        scores_in_memory: int = SCORES_IN_MEMORY,
    ) -> None:
        """`clusters`: the file with them, for a table that has some. `scores_in_memory`: the most that one exact search
        holds, unless one query has more.

        Raises OSError, pyarrow.ArrowException or KeyError for a file that cannot be mapped or has other columns."""
        self._document = document
        self._scores_in_memory = scores_in_memory
        self._threads = machine.cpus()
        self._pool = ThreadPoolExecutor(self._threads, "scores")
        self._clusters = None if clusters is None else Clusters(_mapped(clusters))
        self._batches = [_mapped(file) for file in files]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        self._values = [BatchValues(batch) for batch in self._batches]
        self._vectors = [columns.vectors(batch) for batch in self._batches]
        self._texts = [Texts(batch.column("id")) for batch in self._batches]
        self._norms = [np.asarray(batch.column("norm").to_numpy()) for batch in self._batches]
        hashes = np.concatenate([batch.column("hash").to_numpy() for batch in self._batches])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._hash_rows = order.astype(np.uint32)

    @property
    def document(self) -> Table:
        return self._document

    @property
    def rows(self) -> int:
        return int(self._starts[-1])

    @property
    def dim(self) -> int:
        return int(self._vectors[0].shape[1])

    @property
    def compared(self) -> int:
        """See Table.compared."""
        return self._document.compared

    def has_fields(self, where: Filter) -> bool:
        """Whether the table has all values that the filter reads."""
        return self._document.all_fields or matching.fields(where) <= set(self._document.fields)

    def matching(self, where: Filter) -> Mask:
        """For each row, whether it passes a valid filter. The filter reads only fields that the table has."""
        return np.concatenate([matching.mask(batch, where) for batch in self._values])

    def rows_of(self, ids: Sequence[str]) -> list[int | None]:
        """The rows of the ids; None for an id without a row."""
        hashes = np.array([id_hash(id) for id in ids], np.uint64)
        firsts = np.searchsorted(self._hashes, hashes)
        found = self._ids(self._hash_rows[np.minimum(firsts, self.rows - 1)].astype(np.int64))
        return [
            int(self._hash_rows[first]) if other == id else self._row_of(id, hash, int(first))
            for id, other, hash, first in zip(ids, found, hashes, firsts, strict=True)
        ]

    def exact(self, queries: Vectors, rows: Rows, *, k: int) -> list[list[Neighbour]]:
        """For each of `queries` (n, dim; of length 1) its k nearest of `rows`: best first, equal scores by id.

        The scores are cosines."""
        count = max(1, self._scores_in_memory // max(1, len(rows)))
        return [
            self._best(rows, scores, k)
            for start in range(0, len(queries), count)
            for scores in self._scores(queries[start : start + count], rows)
        ]

    def nearest(self, queries: Vectors, k: int, *, compared: int) -> list[list[Neighbour]]:
        """As `exact`, among the rows of the clusters nearest to each query, at least `compared` of them. Only for a
        table with clusters."""
        return [self.levels(query, {k: compared})[0] for query in queries]

    def levels(self, query: Vector, compared: Mapping[int, int]) -> list[list[Neighbour]]:
        """`nearest` for one query and several k. `compared`: the rows for each k, ascending. Each row is read once."""
        assert self._clusters is not None
        near, ends = self._clusters.near(query, list(compared.values()))
        order = np.argsort(near)
        scores = np.empty(len(near), np.float32)
        (scores[order],) = self._scores(query[None], near[order].astype(np.int64))
        return [self._best(near[:end].astype(np.int64), scores[:end], k) for k, end in zip(compared, ends, strict=True)]

    def nearest_passing(
        self, query: Vector, k: int, passing: Mask, *, compared: int, number: int
    ) -> list[Neighbour] | None:
        """The k nearest rows that pass, among `compared` rows of the nearest clusters. None: other clusters may have
        nearer ones.

        The clusters have the `number` nearest of all rows. Rows that do not pass are not compared, but for a sample: it
        shows about how near the last of the `number` is. Results that are as near are not in other clusters."""
        assert self._clusters is not None
        near = np.sort(self._clusters.near(query, [compared])[0]).astype(np.int64)
        step = sample_step(number, k)
        passes, in_sample = passing[near], np.arange(len(near)) % step == 0
        chosen = passes | in_sample
        rows = near[chosen]
        (scores,) = self._scores(query[None], rows)
        sampled = np.sort(scores[in_sample[chosen]])
        lowest = sampled[-min(len(sampled), number // step)]
        matching = passes[chosen]
        found = self._best(rows[matching], scores[matching], k)
        return found if len(found) == k and found[-1].score >= lowest else None

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record]:
        """The records of the ids that have rows, in their order, as VectorStore.get returns them."""
        return [self._record(row, vectors=vectors) for row in self.rows_of(ids) if row is not None]

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of the ids that have rows, by id: float32 (dim)."""
        rows = zip(ids, self.rows_of(ids), strict=True)
        return {id: self._vector(row) for id, row in rows if row is not None}

    def _scores(self, queries: Vectors, rows: Rows) -> NDArray[np.float32]:
        """(queries, rows)"""
        scores = np.empty((len(queries), len(rows)), np.float32)
        pieces = list(self._by_file(rows))

        def score(pieces: Sequence[tuple[int, slice, Rows]]) -> None:
            for file, places, local in pieces:
                products = half_floats.products(self._vectors[file], local, queries)
                scores[:, places] = products / self._norms[file][local]

        if scores.size < PARALLEL_SCORES:
            score(pieces)
        else:
            for _ in self._pool.map(score, [pieces[thread :: self._threads] for thread in range(self._threads)]):
                pass
        return scores

    def _best(self, rows: Rows, scores: NDArray[np.float32], k: int) -> list[Neighbour]:
        if len(scores) > k:
            # Not the first k only: which of the rows with the score of the last one are in depends on their ids.
            chosen = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
            rows, scores = rows[chosen], scores[chosen]
        order = np.argsort(-scores, kind="stable")
        found = list(map(Neighbour, self._ids(rows[order]), scores[order].tolist()))
        if np.unique(scores).size < len(scores):  # rarely, and this sort takes longer than all else
            found.sort(key=lambda neighbour: (-neighbour.score, neighbour.id))
        return found[:k]

    def _by_file(self, rows: Rows) -> Iterator[tuple[int, slice, Rows]]:
        """The rows of each file: their places in `rows`, and their numbers in that file."""
        ends = np.searchsorted(rows, self._starts)
        for file, (start, end) in enumerate(pairwise(ends.tolist())):
            if start < end:
                yield file, slice(start, end), rows[start:end] - self._starts[file]

    def _row_of(self, id: str, hash: np.uint64, first: int) -> int | None:
        """The row of an id, where ids with the same hash begin at `first`."""
        for position in range(first, self.rows):
            if self._hashes[position] != hash:
                return None
            row = int(self._hash_rows[position])
            if self._ids(np.array([row])) == [id]:
                return row
        return None

    def _ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of rows, which may be in any order."""
        files = np.searchsorted(self._starts, rows, side="right") - 1
        locals = rows - self._starts[files]
        return [self._texts[file][row] for file, row in zip(files.tolist(), locals.tolist(), strict=True)]

    def _record(self, row: int, *, vectors: bool) -> Record:
        file, local = self._place(row)
        batch = self._batches[file]
        return Record(
            batch.column("id")[local].as_py(),
            json.loads(batch.column("metadata")[local].as_py()),
            self._vector(row) if vectors else None,
            {name: batch.column(name)[local].as_py() for name in columns.INTERNAL},
        )

    def _vector(self, row: int) -> Vector:
        file, local = self._place(row)
        return np.asarray(self._vectors[file][local], np.float32)

    def _place(self, row: int) -> tuple[int, int]:
        """The file of a row, and its number in that file."""
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        return file, row - int(self._starts[file])


def _mapped(file: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
