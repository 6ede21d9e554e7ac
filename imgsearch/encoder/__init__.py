"""The model that turns images and texts into vectors of one space. `torch` and `open_clip` are imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""(size, size, 3), RGB: an image cut and scaled to what the model takes."""
Vectors = NDArray[np.float32]
"""(n, dim), each row of length 1."""
LOCAL = "local-dir:"
"""With what the name of a model begins that is a folder, and not from the hub."""


class Encoder(Protocol):
    """A loaded model. Any thread may call; each call blocks."""

    @property
    def model(self) -> str:
        """What it was loaded by: `ARCH/TAG` or `local-dir:PATH`."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights: two encoders with the same one give the same vectors."""

    @property
    def preprocessing(self) -> str:
        """How `prepare` and the normalisation work, for the record."""

    @property
    def dim(self) -> int: ...

    @property
    def size(self) -> int:
        """Side of the square that the model takes, in pixels."""

    @property
    def device(self) -> str:
        """As torch calls it: cpu, cuda:0."""

    @property
    def workers(self) -> int:
        """How many threads should call `encode_images` at once: the CPU's cores, or 1 for a GPU."""

    @property
    def batch(self) -> int:
        """Images that one call should bring; shrinks when the device's memory ran out."""

    @property
    def device_memory(self) -> int:
        """The most bytes of the GPU's memory that were in use so far; 0 on a CPU."""

    def prepare(self, image: Image.Image) -> Pixels:
        """An RGB image of any size as the model's input, not yet normalised."""

    def encode_images(self, batch: Sequence[Pixels]) -> Vectors: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors: ...
