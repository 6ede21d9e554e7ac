"""The clusters of a table: their rows, and the rows that a search compares."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from imgsearch.vectors import Vectors, unit
from searcher.table import clusters, columns
from searcher.table.clusters import Clusters, Numbers
from tests.searcher.table import images

ROWS, CLUSTERS = 600, 20


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return unit(images.vectors(ROWS))


@pytest.fixture(scope="module")
def centroids(vectors: Vectors) -> Vectors:
    return clusters.centroids(vectors[::2], CLUSTERS)


@pytest.fixture(scope="module")
def numbers(vectors: Vectors, centroids: Vectors) -> Numbers:
    return clusters.nearest(vectors, centroids)


def read(centroids: Vectors, numbers: Numbers) -> Clusters:
    """The clusters, written to a file and read again."""
    data = columns.to_bytes(clusters.to_batch(centroids, numbers))
    return Clusters(pa.ipc.open_file(io.BytesIO(data)).get_batch(0))


@pytest.mark.parametrize(
    ("rows", "count"),
    [(0, 0), (9_999, 0), (10_000, 300), (100_000, 948), (200_000, 1_000), (1_000_000, 1_000), (10_000_000, 3_162)],
)
def test_the_clusters_grow_with_the_root_of_the_rows(rows: int, count: int) -> None:
    assert clusters.count(rows) == count


def test_each_vector_is_in_the_cluster_of_the_nearest_centroid(
    vectors: Vectors, centroids: Vectors, numbers: Numbers
) -> None:
    distances = np.linalg.norm(vectors[:, None] - centroids[None], axis=2)
    assert numbers.tolist() == np.argmin(distances, axis=1).tolist()
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(1)
    # k-means: a vector is nearer to its centroid than to any of the same number of random vectors.
    chosen = np.max(vectors @ centroids.T, axis=1).mean()
    assert chosen > np.max(vectors @ images.vectors(CLUSTERS, seed=5).T, axis=1).mean() + 0.05


def test_the_same_sample_gives_the_same_centroids(vectors: Vectors, centroids: Vectors) -> None:
    assert clusters.centroids(vectors[::2], CLUSTERS).tobytes() == centroids.tobytes()


@pytest.mark.parametrize("sample", ["equal", "opposite"])
def test_vectors_without_clusters_have_centroids_all_the_same(sample: str) -> None:
    one = images.vectors(1)
    rows = np.repeat(one, 200, axis=0) if sample == "equal" else np.concatenate([one, -one] * 100)
    found = clusters.centroids(rows, 10)
    assert found.shape == (10, images.DIM)
    assert np.isfinite(found).all()
    assert len(read(found, clusters.nearest(rows, found)).near(one[0], [len(rows)])[0]) == len(rows)


@pytest.mark.parametrize("least", [1, 50, 300, ROWS, 2 * ROWS])
def test_near_rows_are_those_of_the_nearest_clusters(
    vectors: Vectors, centroids: Vectors, numbers: Numbers, least: int
) -> None:
    for query in unit(images.vectors(5, seed=3)):
        expected: set[int] = set()
        for cluster in np.argsort(-(centroids @ query)):
            if len(expected) >= least:
                break
            expected |= set(np.flatnonzero(numbers == cluster).tolist())
        rows, ends = read(centroids, numbers).near(query, [least])
        found = rows.tolist()
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert ends == [len(found)]


def test_the_rows_for_a_smaller_count_are_the_first_of_those_for_a_larger_one(
    vectors: Vectors, centroids: Vectors, numbers: Numbers
) -> None:
    found, counts = read(centroids, numbers), [1, 50, 51, 300, 2 * ROWS]
    rows, ends = found.near(vectors[7], counts)
    assert [rows[:end].tolist() for end in ends] == [found.near(vectors[7], [count])[0].tolist() for count in counts]


def test_a_row_is_compared_if_more_rows_are_than_before_its_cluster(
    vectors: Vectors, centroids: Vectors, numbers: Numbers
) -> None:
    queries = unit(images.vectors(4, seed=3))
    rows = np.argsort(-(queries @ vectors.T), axis=1)[:, :30]
    before = clusters.rows_before(queries, centroids, numbers, rows)
    found = read(centroids, numbers)
    for query, query_rows, counts in zip(queries, rows, before, strict=True):
        for row, count in zip(query_rows.tolist(), counts.tolist(), strict=True):
            assert row in found.near(query, [count + 1])[0].tolist()
            assert count == 0 or row not in found.near(query, [count])[0].tolist()
