"""The part of OpenCLIP's preprocessing that scales and crops, in memory that does not depend on an image's shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from imgsearch.encoder import Pixels
from imgsearch.encoder.libraries import transforms
from imgsearch.errors import BadImage

MAX_RATIO = 64
"""Longer side ÷ shorter side of an image up to which OpenCLIP's transforms get it as it is."""


class Geometry:
    """The steps of a model's preprocessing before its arithmetic."""

    def __init__(self, preprocess: transforms.Compose) -> None:
        self._steps = [step for step in preprocess.transforms if not _is_arithmetic(step)]
        self._crops = any(isinstance(step, transforms.CenterCrop) for step in self._steps)

    def prepare(self, image: Image.Image) -> Pixels:
        """Raises BadImage."""
        try:
            image = bounded(image, crops=self._crops)
            for step in self._steps:
                image = step(image)
        except Exception as error:  # one image must not end the job
            raise BadImage("decode", f"cannot be scaled for the model: {str(error) or type(error).__name__}") from error
        return np.asarray(image)


def bounded(image: Image.Image, *, crops: bool) -> Image.Image:
    """An image whose sides differ by at most MAX_RATIO; an ordinary image as it is.

    `crops`: the model sees only the middle of a long image, so its ends are cut off. Else it sees the whole image, so
    neighbouring pixels along the longer side are averaged."""
    long, short = max(image.size), min(image.size)
    if long <= MAX_RATIO * short:
        return image
    if not crops:
        factor = -(-long // (MAX_RATIO * short))
        return image.reduce((factor, 1) if image.width == long else (1, factor))
    start = (long - MAX_RATIO * short) // 2
    end = start + MAX_RATIO * short
    return image.crop((start, 0, end, short) if image.width == long else (0, start, short, end))


def _is_arithmetic(transform: Any) -> bool:
    return isinstance(transform, transforms.Normalize) or type(transform).__name__ in ("ToTensor", "MaybeToTensor")
