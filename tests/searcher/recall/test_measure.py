"""The measured recall of stores that find everything, not everything, and of a Chroma with a bad graph."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import chromadb
import numpy as np
import pytest

from imgsearch.stage import Interrupted
from imgsearch.stores import Hit, Neighbour, Record, VectorStore
from imgsearch.stores.chroma import ChromaStore
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vectors, unit
from searcher.recall import measure
from searcher.recall.measure import Measured
from searcher.table import clusters
from tests.fakes import InMemoryStore

DIM = 32


class IncompleteStore(InMemoryStore):
    """Its searches never find some of the images."""

    unfound_ids: frozenset[str] = frozenset()

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        rows = super().search(collection, queries, k=10_000, where=where, vectors=vectors)
        return [[hit for hit in row if hit.id not in self.unfound_ids][:k] for row in rows]


class Images:
    """Vectors in clusters, as those of photos are."""

    def __init__(self, count: int, *, clusters: int = 20, dim: int = DIM) -> None:
        random = np.random.default_rng(7)
        centres = random.normal(size=(clusters, dim))
        vectors = centres[random.integers(clusters, size=count)] + 0.4 * random.normal(size=(count, dim))
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        self.ids = [f"{number:05d}" for number in range(count)]

    def fill(self, store: VectorStore) -> None:
        store.create("photos", dim=self.vectors.shape[1], vectors=100)
        rows = zip(self.ids, self.vectors, strict=True)
        store.add("photos", [Record(id, {}, vector, {"key": id}) for id, vector in rows])

    def blocks(self) -> Iterator[tuple[list[str], Vectors]]:
        for start in range(0, len(self.ids), 300):
            yield self.ids[start : start + 300], self.vectors[start : start + 300]

    def measured(
        self,
        store: VectorStore,
        sample: int = 40,
        texts: Vectors | None = None,
        target: float = 0.99,
        centroids: Vectors | None = None,
    ) -> Measured:
        return measure.measure(
            store,
            "photos",
            self.vectors[:sample],
            self.ids[:sample],
            self.vectors[:0] if texts is None else texts,
            self.blocks(),
            centroids=centroids,
            images=len(self.ids),
            target=target,
            stopping=threading.Event(),
        )


def figures(measured: Measured) -> dict[tuple[str, int], tuple[float, float]]:
    """Mean and worst by kind and k."""
    return {(figure["queries"], figure["k"]): (figure["mean"], figure["worst"]) for figure in measured.figures}


def test_a_store_that_finds_everything_has_the_recall_1() -> None:
    images, store = Images(1000), InMemoryStore()
    images.fill(store)
    measured = images.measured(store)
    assert measured.candidates == 128
    assert figures(measured) == {
        ("images", 10): (1.0, 1.0),
        ("images", 100): (1.0, 1.0),
        ("changed images", 10): (1.0, 1.0),
        ("changed images", 100): (1.0, 1.0),
    }


def test_the_recall_is_the_share_of_the_nearest_images_that_are_found() -> None:
    images, store = Images(1000), IncompleteStore()
    images.fill(store)
    store.unfound_ids = frozenset(images.ids[::10])
    measured = figures(images.measured(store))
    shares = []
    for row in range(40):
        scores = images.vectors @ images.vectors[row]
        scores[row] = -1
        nearest = np.argsort(-scores)[:10]
        shares.append(sum(images.ids[column] not in store.unfound_ids for column in nearest) / 10)
    assert 0.5 < min(shares) < np.mean(shares) < 1
    mean, worst = measured["images", 10]
    assert mean == pytest.approx(np.mean(shares), abs=1e-4)
    assert worst == pytest.approx(np.mean(sorted(shares)[:2]), abs=1e-4)


def test_texts_are_queries_of_their_own_with_their_own_recall() -> None:
    """Of any length: a store compares by cosine. Half of the images that are nearest to the second are not found."""
    images, store = Images(1000), IncompleteStore()
    images.fill(store)
    texts = 1e-5 * np.random.default_rng(1).normal(size=(2, DIM)).astype(np.float32)
    first, second = np.argsort(-(texts @ images.vectors.T), axis=1)
    assert not set(second[:5]) & set(first[:100])
    store.unfound_ids = frozenset(images.ids[column] for column in second[:5])
    measured = figures(images.measured(store, texts=texts))
    assert measured["texts", 10] == (0.75, 0.5)
    assert measured["texts", 100] == (0.975, 0.95)
    assert {kind for kind, _ in measured} == {"images", "changed images", "texts"}


def test_a_small_collection_needs_no_figures() -> None:
    images, store = Images(11), InMemoryStore()
    images.fill(store)
    assert images.measured(store, sample=11) == Measured(128, 0, None, [])


def test_a_stop_ends_the_pass_over_the_vectors() -> None:
    images, store, stopping, read = Images(1000), InMemoryStore(), threading.Event(), []

    def blocks() -> Iterator[tuple[list[str], Vectors]]:
        for block in images.blocks():
            stopping.set()
            read.append(block)
            yield block

    images.fill(store)
    with pytest.raises(Interrupted):
        measure.measure(
            store,
            "photos",
            images.vectors[:4],
            images.ids[:4],
            images.vectors[:0],
            blocks(),
            centroids=None,
            images=1000,
            target=0.99,
            stopping=stopping,
        )
    assert len(read) == 1


def test_a_changed_image_has_a_cosine_of_0_9_to_its_original() -> None:
    vectors = Images(50).vectors
    changed = measure.changed(vectors)
    assert np.sum(changed * vectors, axis=1) == pytest.approx(np.full(50, 0.9), abs=1e-5)
    assert np.linalg.norm(changed, axis=1) == pytest.approx(np.ones(50), abs=1e-5)


class WideningStore(InMemoryStore):
    """Each candidate of a search widens what it sees: with 1 024, all images."""

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        rows = super().nearest(collection, queries, k=10_000, where=where)
        return [[neighbour for neighbour in row if int(neighbour.id) % 16 < k // 64][:k] for row in rows]


@pytest.mark.parametrize(("target", "candidates"), [(0.99, 1_024), (0.3, 512), (0.05, 128)])
def test_a_search_gets_the_candidates_that_reach_the_target(target: float, candidates: int) -> None:
    images, store = Images(1_100), WideningStore()
    images.fill(store)
    measured = images.measured(store, target=target)
    assert measured.candidates == candidates
    means = [mean for mean, _ in figures(measured).values()]
    assert min(means) >= target
    if target == 0.99:
        assert means == [1.0] * 4


class CountingStore(WideningStore):
    """A widening store for queries that no image is like; for others, it sees all images. It counts the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: Counter[int] = Counter()
        """By the candidates."""

    def nearest(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None
    ) -> list[list[Neighbour]]:
        self.queries[k] += len(queries)
        exact = InMemoryStore.nearest(self, collection, queries, k=k, where=where)
        return [
            row if row[0].score > 0.8 else widened
            for row, widened in zip(exact, super().nearest(collection, queries, k=k, where=where), strict=True)
        ]


def test_only_queries_that_more_candidates_change_are_searched_again() -> None:
    images, store = Images(1_100), CountingStore()
    images.fill(store)
    texts = np.random.default_rng(1).normal(size=(2, DIM)).astype(np.float32)
    measured = images.measured(store, texts=texts)
    assert measured.candidates == 1_024
    assert {mean for mean, _ in figures(measured).values()} == {1.0}
    assert store.queries == {128: 82, 256: 82, 512: 2, 1_024: 2, 2_048: 2}


class Clustered:
    """The clusters of some images, and the recall of searches that compare some of the rows."""

    def __init__(self, images: Images) -> None:
        self.vectors = images.vectors
        self.centroids = clusters.centroids(images.vectors, 100)
        self.numbers = clusters.nearest(images.vectors, self.centroids)
        self.file = clusters.Clusters(clusters.to_batch(self.centroids, self.numbers))

    def recall(self, queries: Vectors, k: int, compared: int) -> float:
        shares = []
        for query in queries:
            best = np.argsort(-(self.vectors @ query))[:k]
            shares.append(len(set(best.tolist()) & set(self.file.near(query, [compared])[0].tolist())) / k)
        return round(float(np.mean(shares)), 4)


def test_a_search_compares_rows_of_the_table_where_the_store_misses_the_target() -> None:
    images, store = Images(4_000), IncompleteStore()
    images.fill(store)
    store.unfound_ids = frozenset(images.ids[::10])
    clustered = Clustered(images)
    texts = unit(np.random.default_rng(1).normal(size=(30, DIM)).astype(np.float32))
    measured = images.measured(store, texts=texts, centroids=clustered.centroids, target=0.997)
    assert measured.clusters is not None
    assert measured.clusters.tolist() == clustered.numbers.tolist()
    assert 1_000 < measured.compared <= 2_000
    for k in (10, 100):
        mean, _ = figures(measured)["texts", k]
        assert mean == clustered.recall(texts, k, measured.compared) >= 0.997
    fewer = min(clustered.recall(texts, k, round(measured.compared / np.sqrt(2))) for k in (10, 100))
    assert fewer < 0.997, "fewer rows reach the target as well"


def test_the_store_is_searched_where_that_costs_less() -> None:
    """A search of it for 128 images costs as much as 12 096 rows of 512 dimensions."""
    images, store = Images(14_000, dim=512), InMemoryStore()
    images.fill(store)
    texts = unit(np.random.default_rng(1).normal(size=(30, 512)).astype(np.float32))
    # Centroids in random directions: nearly all rows are needed for any query.
    bad = unit(np.random.default_rng(2).normal(size=(100, 512)).astype(np.float32))
    measured = images.measured(store, sample=20, texts=texts, centroids=bad, target=1.0)
    assert (measured.compared, measured.clusters) == (0, None)
    assert {mean for mean, _ in figures(measured).values()} == {1.0}


def test_a_bad_graph_is_measured_as_bad_and_gets_more_candidates(tmp_path: Path) -> None:
    images, found = Images(4_000), dict[str, list[Measured]]()
    for name, graph in {"bad": {"max_neighbors": 3, "ef_construction": 4, "ef_search": 10}, "default": {}}.items():
        folder = tmp_path / name
        client = chromadb.PersistentClient(str(folder))
        client.create_collection("photos", configuration={"hnsw": {"space": "cosine", **graph}})
        client.close()
        with closing(ChromaStore(f"chroma+file://{folder}")) as store:
            images.fill(store)
            found[name] = [images.measured(store, sample=20, target=target) for target in (0.3, 0.95)]
    least, more = found["bad"]
    assert least.candidates == 128
    assert max(mean for mean, _ in figures(least).values()) < 0.95
    assert more.candidates > 256
    assert min(mean for mean, _ in figures(more).values()) > min(mean for mean, _ in figures(least).values())
    assert [measured.candidates for measured in found["default"]] == [128, 128]
    assert min(mean for mean, _ in figures(found["default"][1]).values()) > 0.99
