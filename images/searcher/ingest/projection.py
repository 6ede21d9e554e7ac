"""The map of an index: positions on a plane where similar images are close to each other, and a sprite. No I/O."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from imgsearch.vectors import Vectors

IMAGES = 3_000
"""Images on a map: a person can look through them, and a browser draws them smoothly."""
TILE = 48
"""Pixels. 55 × 55 tiles stay far below the 16,383 pixels of a WebP's longest side."""
MIN_VECTORS = 10
"""Fewer distinct vectors are too few for t-SNE, and are placed by their two principal components."""
PERPLEXITY = 30
"""About the number of neighbours that t-SNE keeps close. Maaten and Hinton (2008) advise 5 to 50."""
ITERATIONS = 500
"""Half of scikit-learn's default: the same trustworthiness on 3,000 vectors, in half of the time."""


def positions(vectors: Vectors) -> NDArray[np.float64]:
    """Positions (n, 2) in 0…1 of L2-normalised vectors (n, dim). The same vectors give the same positions.

    Barnes-Hut t-SNE (https://scikit-learn.org/stable/modules/manifold.html#t-sne). On one thread: several threads add
    in a random order, which makes each map different, and compete for the CPUs of a small pod."""
    if len(np.unique(vectors, axis=0)) < MIN_VECTORS:
        return _fitted(_principal(vectors))
    # Imported here: they take a second and 100 MB, which an ingest without a map does not need.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, max_iter=ITERATIONS, init="pca", random_state=0).fit_transform(vectors)
    return _fitted(np.asarray(points, np.float64))


def tile(thumbnail: bytes) -> Image.Image:
    """The middle of a thumbnail, TILE × TILE pixels."""
    with Image.open(io.BytesIO(thumbnail)) as image:
        return ImageOps.fit(image.convert("RGB"), (TILE, TILE), Image.Resampling.BILINEAR)


def columns(tiles: int) -> int:
    """The number of columns of a sprite that is approximately square."""
    return math.ceil(math.sqrt(tiles))


def sprite(tiles: Sequence[Image.Image]) -> bytes:
    """A WebP of all tiles, row by row."""
    column_count = columns(len(tiles))
    row_count = math.ceil(len(tiles) / column_count)
    canvas = Image.new("RGB", (column_count * TILE, row_count * TILE))
    for number, image in enumerate(tiles):
        canvas.paste(image, (number % column_count * TILE, number // column_count * TILE))
    sink = io.BytesIO()
    canvas.save(sink, "WEBP", quality=60)
    return sink.getvalue()


def _principal(vectors: Vectors) -> NDArray[np.float64]:
    """The first two principal components (n, 2); zeros where there are fewer."""
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    left_vectors, singular_values, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2))
    scores = left_vectors[:, :2] * singular_values[:2]
    points[:, : scores.shape[1]] = scores
    return points


def _fitted(points: NDArray[Any]) -> NDArray[np.float64]:
    """Scaled to 0…1 by the same factor in both directions, and centred."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = max(float((high - low).max()), 1e-9)  # equal points have no extent
    return np.asarray((points - (low + high) / 2) / extent + 0.5, np.float64)
