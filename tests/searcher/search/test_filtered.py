"""Filtered searches by the table: complete and right, for filters that correlate with the query in any way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imgsearch.stores import Neighbour, Record
from imgsearch.stores.filters import parse
from imgsearch.vectors import Vectors, unit
from searcher.search.filter_plan import candidates
from searcher.search.filtered import Nearest, NearestOfClusters, NearestOfStore, filtered
from searcher.table import clusters
from searcher.table.matching import Mask
from searcher.table.reader import RunTable
from tests.searcher.table import images

ROWS = 1_000
K = 20


class Cheap:
    """At so little cost that the nearest are searched for broad filters, as in a large index."""

    def __init__(self, nearest: Nearest) -> None:
        self._nearest = nearest
        self.requested: list[int] = []
        self.answered: list[bool] = []
        """Whether it had the results of a query, or left them to the exact search."""

    def passing(self, queries: Vectors, number: int, passing: Mask, *, k: int) -> list[list[Neighbour] | None]:
        self.requested.append(number)
        found = self._nearest.passing(queries, number, passing, k=k)
        self.answered += [neighbours is not None for neighbours in found]
        return found

    def cost(self, number: int, share: float, k: int) -> float:
        return 1 + 0.001 * number


class Index:
    """Vectors in a table, with a store that finds the nearest of all of them."""

    def __init__(self, folder: Path) -> None:
        self.vectors = images.vectors(ROWS)
        self.query = images.vectors(1, seed=9)
        self.scores = self.unit() @ self.query[0]
        """Of all rows, with the first query."""
        rank = np.argsort(np.argsort(-self.scores))
        metadata = [
            {
                "all": True,
                "most": number % 10 < 9,
                "few": number % 50 == 0,
                "near": bool(rank[number] < 500),
                "far": bool(rank[number] >= 400),
                "three": bool(rank[number] in (5, 600, 999)),
            }
            for number in range(ROWS)
        ]
        self.records: list[Record] = images.records(metadata, self.vectors)
        self.table: RunTable = images.table(folder, self.records, file_rows=300)
        self.store = Cheap(NearestOfStore(self.table, self.nearest, int))

    def unit(self) -> Vectors:
        return np.asarray(self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True), np.float32)

    def nearest(self, queries: Vectors, k: int) -> list[list[Neighbour]]:
        scores = queries @ self.unit().T
        return [
            [Neighbour(self.records[row].id, float(query[row])) for row in np.argsort(-query, kind="stable")[:k]]
            for query in scores
        ]

    def exact(self, query: Vectors, field: str, k: int) -> list[str]:
        scores = self.unit() @ query
        rows = [row for row, record in enumerate(self.records) if record.metadata[field]]
        return [self.records[row].id for row in sorted(rows, key=lambda row: -scores[row])[:k]]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index(tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("field", ["all", "most", "few", "near", "far", "three"])
@pytest.mark.parametrize("k", [1, K, 300])
def test_a_filtered_search_gives_the_nearest_that_pass(index: Index, field: str, k: int) -> None:
    queries = np.concatenate([index.query, images.vectors(2, seed=3)])
    results = filtered(index.table, queries, parse({field: True}), index.store, k=k)
    for query, result in zip(queries, results, strict=True):
        assert [neighbour.id for neighbour in result] == index.exact(query, field, k)


@pytest.mark.parametrize(
    ("field", "uses_store"), [("all", True), ("most", True), ("far", True), ("few", False), ("three", False)]
)
def test_the_store_is_searched_only_for_broad_filters(index: Index, field: str, uses_store: bool) -> None:
    index.store.requested.clear()
    filtered(index.table, index.query, parse({field: True}), index.store, k=K)
    assert bool(index.store.requested) == uses_store


def test_a_filter_that_nothing_passes_has_no_results(index: Index) -> None:
    assert filtered(index.table, index.query, parse({"all": False}), index.store, k=K) == [[]]


def test_a_result_does_not_depend_on_the_other_queries(index: Index) -> None:
    """One of them needs the exact search after all, the others do not."""
    queries = np.concatenate([index.query, -index.query, images.vectors(2, seed=3)])
    together = filtered(index.table, queries, parse({"far": True}), index.store, k=K)
    for query, result in zip(queries, together, strict=True):
        alone = filtered(index.table, query[None], parse({"far": True}), index.store, k=K)
        assert [neighbour.id for neighbour in alone[0]] == [neighbour.id for neighbour in result]


def test_images_that_the_store_has_and_the_table_does_not_are_left_out(index: Index) -> None:
    def with_stranger(queries: Vectors, k: int) -> list[list[Neighbour]]:
        return [[Neighbour("stranger", 1.0), *row] for row in index.nearest(queries, k)]

    store = Cheap(NearestOfStore(index.table, with_stranger, int))
    (result,) = filtered(index.table, index.query, parse({"all": True}), store, k=K)
    assert [neighbour.id for neighbour in result] == index.exact(index.query[0], "all", K)


class ClusteredIndex:
    """Vectors in tight clusters, of which the table has the centroids."""

    clusters = 40

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(3)
        centres = images.vectors(self.clusters, seed=4)
        self.labels = random.integers(self.clusters, size=2 * ROWS)
        self.vectors = unit(centres[self.labels] + 0.02 * random.normal(size=(2 * ROWS, images.DIM)))
        self.vectors = np.asarray(self.vectors.astype(np.float16), np.float32)
        self.query = unit(centres[:1] + 0.3 * images.vectors(1, seed=9))
        nearest = np.argsort(-(centres @ self.query[0]))
        metadata = [
            {
                "all": True,
                "half": number % 2 == 0,
                "few": number % 100 == 0,
                "near": bool(label in nearest[:10]),
                "far": bool(label in nearest[20:]),
                "other": bool(label in nearest[1:3] or label in nearest[25:]),
            }
            for number, label in enumerate(self.labels)
        ]
        self.records = images.records(metadata, self.vectors)
        numbers = clusters.nearest(self.vectors, centres)
        self.table = images.table(folder, self.records, file_rows=300, clusters=clusters.to_batch(centres, numbers))
        self.by_clusters = Cheap(NearestOfClusters(self.table, lambda number: 2 * number))

    def exact(self, field: str, k: int) -> list[str]:
        scores = unit(self.vectors) @ self.query[0]
        rows = [row for row, record in enumerate(self.records) if record.metadata[field]]
        return [self.records[row].id for row in sorted(rows, key=lambda row: -scores[row])[:k]]

    def search(self, field: str, k: int) -> list[str]:
        (found,) = filtered(self.table, self.query, parse({field: True}), self.by_clusters, k=k)
        return [neighbour.id for neighbour in found]


@pytest.fixture(scope="module")
def clustered_index(tmp_path_factory: pytest.TempPathFactory) -> ClusteredIndex:
    return ClusteredIndex(tmp_path_factory.mktemp("clusters"))


@pytest.mark.parametrize("field", ["all", "half", "few", "near", "far", "other"])
@pytest.mark.parametrize("k", [1, K, 300])
def test_a_search_of_the_clusters_gives_the_nearest_that_pass(
    clustered_index: ClusteredIndex, field: str, k: int
) -> None:
    assert clustered_index.search(field, k) == clustered_index.exact(field, k)


@pytest.mark.parametrize(
    ("field", "answered"), [("all", [True]), ("half", [True]), ("near", [True]), ("far", [False]), ("few", [])]
)
@pytest.mark.parametrize("k", [1, K])
def test_the_clusters_are_searched_first(
    clustered_index: ClusteredIndex, field: str, answered: list[bool], k: int
) -> None:
    """Where they have too few of the nearest that pass, the exact search answers, and for narrow filters at once."""
    clustered_index.by_clusters.answered.clear()
    clustered_index.search(field, k)
    assert clustered_index.by_clusters.answered == answered


def test_a_result_of_the_clusters_does_not_depend_on_the_other_queries(clustered_index: ClusteredIndex) -> None:
    queries = np.concatenate([clustered_index.query, -clustered_index.query, images.vectors(3, seed=5)])
    search, where = clustered_index.by_clusters, parse({"far": True})
    search.answered.clear()
    together = filtered(clustered_index.table, queries, where, search, k=K)
    assert set(search.answered) == {True, False}
    for query, result in zip(queries, together, strict=True):
        assert filtered(clustered_index.table, query[None], where, search, k=K) == [result]


def test_a_filter_without_correlation_seldom_needs_the_exact_search(tmp_path: Path) -> None:
    """By the plan, in 2 of 100 searches, for any k."""
    vectors = images.vectors(6_000)
    records = images.records([{}] * len(vectors), vectors)
    table = images.table(tmp_path, records, file_rows=3_000, clusters=images.clustered(vectors, 30))
    passing = np.random.default_rng(1).random(len(vectors)) < 0.5
    for k in (101, 404, 1_616):
        number = candidates(rows=table.rows, matches=int(passing.sum()), wanted=k, exact=1, cost=lambda number: 0)
        assert number is not None
        search = NearestOfClusters(table, lambda number: table.rows)
        found = search.passing(images.vectors(200, seed=2), number, passing, k=k)
        assert found.count(None) <= 10, k


@pytest.mark.parametrize("k", [1, K, 100])
def test_a_filter_that_keeps_far_images_is_answered_exactly(index: Index, tmp_path: Path, k: int) -> None:
    """The nearest clusters have enough images that pass it. Most of the nearest that pass are in other clusters."""
    table = images.table(tmp_path, index.records, clusters=images.clustered(index.vectors, 30))
    passing = table.matching(parse({"far": True}))
    compared = table.nearest(index.query, ROWS, compared=12 * k)[0]
    assert sum(bool(passing[row]) for row in table.rows_of([n.id for n in compared]) if row is not None) >= k

    nearest = Cheap(NearestOfClusters(table, lambda number: 4 * number))
    (found,) = filtered(table, index.query, parse({"far": True}), nearest, k=k)
    assert [neighbour.id for neighbour in found] == index.exact(index.query[0], "far", k)


def test_the_costs_are_those_of_the_effort(clustered_index: ClusteredIndex) -> None:
    store = NearestOfStore(clustered_index.table, lambda queries, k: [], lambda number: 3 * number)
    assert [store.cost(number, 0.5, K) for number in (100, 900)] == [8_000 + 32 * 300, 8_000 + 32 * 2 * ROWS]
    by_clusters = NearestOfClusters(clustered_index.table, lambda number: 3 * number)
    # Half of the rows pass; of the others, one of two is in the sample, or one of four. A row has 16 dimensions, and
    # not 512.
    assert [by_clusters.cost(number, 0.5, K) for number in (128, 256)] == [9, 15]


def test_only_rows_of_the_nearest_clusters_are_compared(clustered_index: ClusteredIndex) -> None:
    """With the rows of one cluster, as many as it has are found, and no other."""
    (found,) = clustered_index.table.nearest(clustered_index.query, 2 * ROWS, compared=1)
    assert 20 < len(found) < 100
    assert [neighbour.id for neighbour in found] == clustered_index.exact("all", len(found))


def test_several_levels_of_a_search_are_the_same_as_one_by_one(clustered_index: ClusteredIndex) -> None:
    table, query = clustered_index.table, clustered_index.query
    compared = {5: 1, 50: 120, 100: 121, 700: 900, 3 * ROWS: 3 * ROWS}
    one_by_one = [table.nearest(query, k, compared=rows)[0] for k, rows in compared.items()]
    assert table.levels(query[0], compared) == one_by_one
    assert [len(level) for level in one_by_one] == [5, 50, 100, 700, 2 * ROWS]
