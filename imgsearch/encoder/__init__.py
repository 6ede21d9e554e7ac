"""The model, which turns images and texts into vectors of one space. The one door to `torch` and `open_clip`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgsearch.vectors import Vectors

Pixels = NDArray[np.uint8]
"""(size, size, 3), RGB: an image cropped and scaled to the input of the model."""
LOCAL = "local-dir:"
"""The prefix of the name of a model that is a local folder."""


class Encoder(Protocol):
    """A loaded model. Any thread may call; each call blocks."""

    @property
    def model(self) -> str:
        """The name of the model: `ARCH/TAG` or `local-dir:PATH`."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights: two encoders with the same fingerprint give the same vectors."""

    @property
    def preprocessing(self) -> str:
        """The steps of `prepare` and of the normalisation. Each part records them."""

    @property
    def dim(self) -> int: ...

    @property
    def size(self) -> int:
        """Side of the square input of the model, in pixels."""

    @property
    def device(self) -> str:
        """Name of the device in torch: cpu, cuda:0."""

    @property
    def workers(self) -> int:
        """The number of threads that should call `encode_images` at once."""

    @property
    def batch(self) -> int:
        """The number of images for one call; it shrinks if the device runs out of memory."""

    @property
    def device_memory(self) -> int:
        """The peak memory of the GPU so far, in bytes; 0 on a CPU."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Turns an RGB image of any size into the model's input, not yet normalised."""

    def encode_images(self, batch: Sequence[Pixels]) -> Vectors:
        """The vectors of the images, each of length 1."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, each of length 1."""
