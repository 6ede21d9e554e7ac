"""The clusters of the vectors of a run: a search compares the query with the rows of the nearest clusters. No I/O.

This is an inverted file of whole vectors (IVF-Flat; Sivic and Zisserman, "Video Google", 2003), with the centroids of
k-means. A graph finds the neighbours of an image well, but misses those of a text, which is far from all images
(docs/adr/0019-clusters-where-the-graph-misses-texts.md).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgsearch.vectors import Vector, Vectors, unit

FEWEST_ROWS = 10_000
"""A smaller run has no clusters: a graph of its size finds everything, and a search of it takes a few milliseconds."""
MOST_REFINED = 1_000
"""Up to so many clusters, there are more than the root of the rows: k-means takes about a second for them."""
SAMPLES = 16
"""Vectors for each cluster from which the centroids are computed."""
ITERATIONS = 10
"""Of k-means. More of them move the centroids little, and a search only needs clusters of about the same size."""

Numbers = NDArray[np.int32]
"""The number of a cluster for each row."""


def count(rows: int) -> int:
    """The number of clusters of so many rows, 0 for none. With more and smaller ones, a search compares fewer rows for
    the same recall. The time of k-means grows with their square."""
    root = math.isqrt(rows)
    return 0 if rows < FEWEST_ROWS else max(root, min(3 * root, MOST_REFINED))


def centroids(sample: Vectors, clusters: int) -> Vectors:
    """The centroids (clusters, dim), of length 1, of a sample (n, dim) of the vectors. The same sample gives the same
    centroids: on one thread, because several threads add in a random order."""
    # Imported here: they take a second and 100 MB, which an ingest without clusters does not need.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    means = KMeans(clusters, init="random", n_init=1, max_iter=ITERATIONS, random_state=0)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal vectors share a cluster, and others stay empty
        centres = np.asarray(means.fit(unit(sample)).cluster_centers_, np.float32)
    # Opposite vectors may have a mean of zero, which has no direction.
    return np.asarray(centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-6), np.float32)


def nearest(vectors: Vectors, centroids: Vectors) -> Numbers:
    """The cluster of each of the vectors (n, dim)."""
    return np.asarray(np.argmax(unit(vectors) @ centroids.T, axis=1), np.int32)


def rows_before(queries: Vectors, centroids: Vectors, numbers: Numbers, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of some `rows` (n, k) of the queries (n, dim): the number of rows in the clusters that are nearer to the
    query than its own. A search that compares more rows than this compares this one, too. `numbers`: the cluster of
    each row of the table."""
    sizes = np.bincount(numbers, minlength=len(centroids))
    order = np.argsort(-(queries @ centroids.T), axis=1, kind="stable")
    ordered_sizes = sizes[order]
    before = np.empty_like(ordered_sizes)
    np.put_along_axis(before, order, np.cumsum(ordered_sizes, axis=1) - ordered_sizes, axis=1)
    return np.take_along_axis(before, numbers[rows], axis=1)


def to_batch(centroids: Vectors, numbers: Numbers) -> pa.RecordBatch:
    """The batch of the file: for each cluster, its centroid and its rows."""
    rows = np.argsort(numbers, kind="stable").astype(np.uint32)
    ends = np.cumsum(np.bincount(numbers, minlength=len(centroids)))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.RecordBatch.from_pydict(
        {
            "centroid": pa.FixedSizeListArray.from_arrays(pa.array(centroids.reshape(-1)), centroids.shape[1]),
            "rows": pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows)),
        }
    )


class Clusters:
    """The clusters of a file. Any thread may call."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        """Raises KeyError for a batch with other columns."""
        centroids, rows = batch.column("centroid"), batch.column("rows")
        self._centroids = np.asarray(centroids.values.to_numpy()).reshape(len(centroids), centroids.type.list_size)
        self._offsets = np.asarray(rows.offsets.to_numpy())
        self._rows = np.asarray(rows.values.to_numpy())

    def near(self, query: Vector, counts: Sequence[int]) -> tuple[NDArray[np.uint32], list[int]]:
        """All rows of the clusters that are nearest to the query (dim), and for each of the ascending `counts` how many
        of them, from the first on, are those of the nearest clusters with at least so many rows, if there are."""
        # Not by `@`: the threads of its BLAS wait for more work on a core that the comparison of the rows needs.
        order = np.argsort(-np.vecdot(self._centroids, query), kind="stable")
        totals = np.cumsum(np.diff(self._offsets)[order])
        lasts = np.minimum(np.searchsorted(totals, counts), len(order) - 1)
        chosen = order[: lasts[-1] + 1]
        rows = [self._rows[self._offsets[cluster] : self._offsets[cluster + 1]] for cluster in chosen]
        return np.concatenate(rows), totals[lasts].tolist()
