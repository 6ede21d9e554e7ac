"""The map of an index: vectors on a plane where like lies beside like, and the tiles that show them there. No I/O."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from imgsearch.stores import Vectors

IMAGES = 3_000
"""As many as a person can look through, and a browser can move smoothly."""
TILE = 48
"""Pixels; 55 × 55 tiles are far from the 16,383 pixels a side that a WebP may have."""
FEWEST = 10
"""Fewer vectors have no neighbourhoods: the two directions in which they differ most say all."""
PERPLEXITY = 30
"""How many neighbours t-SNE tries to keep, of Maaten and Hinton 2008, who advise 5 to 50."""
ITERATIONS = 500
"""Half of scikit-learn's default: no worse by trustworthiness on 3,000 vectors, in half of the time."""


def places(vectors: Vectors) -> NDArray[np.float64]:
    """A place (n, 2) in 0…1 for each of the L2-normalised vectors (n, dim), the same each time.

    t-SNE by Barnes and Hut (https://scikit-learn.org/stable/modules/manifold.html#t-sne). On one thread: several add
    in an order of their own, so that the map would be another one each time, and fight for the CPUs of a small pod."""
    if len(np.unique(vectors, axis=0)) < FEWEST:
        return _fitted(_principal(vectors))
    # Here, since they take a second and 100 MB, and an ingest that has nothing to draw needs neither.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        made = TSNE(2, perplexity=perplexity, max_iter=ITERATIONS, init="pca", random_state=0).fit_transform(vectors)
    return _fitted(np.asarray(made, np.float64))


def tile(thumbnail: bytes) -> Image.Image:
    """The middle of a thumbnail, TILE × TILE pixels."""
    with Image.open(io.BytesIO(thumbnail)) as image:
        return ImageOps.fit(image.convert("RGB"), (TILE, TILE), Image.Resampling.BILINEAR)


def columns(tiles: int) -> int:
    """Of a sprite that is about square."""
    return math.ceil(math.sqrt(tiles))


def sprite(tiles: Sequence[Image.Image]) -> bytes:
    """A WebP of all tiles, row by row."""
    wide = columns(len(tiles))
    whole = Image.new("RGB", (wide * TILE, -(-len(tiles) // wide) * TILE))
    for number, each in enumerate(tiles):
        whole.paste(each, (number % wide * TILE, number // wide * TILE))
    sink = io.BytesIO()
    whole.save(sink, "WEBP", quality=60)
    return sink.getvalue()


def _principal(vectors: Vectors) -> NDArray[np.float64]:
    """The first two principal components (n, 2); zeros where there are fewer."""
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    made = np.zeros((len(vectors), 2))
    scores = left[:, :2] * sizes[:2]
    made[:, : scores.shape[1]] = scores
    return made


def _fitted(points: NDArray[Any]) -> NDArray[np.float64]:
    """In the middle of 0…1, as large as fits, with the same scale in both directions."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = max(float((high - low).max()), 1e-9)  # those that are all one have none
    return np.asarray((points - (low + high) / 2) / extent + 0.5, np.float64)
