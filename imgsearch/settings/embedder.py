"""The embedder's own settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from imgsearch.settings.fields import PositiveInt, setting


@dataclass(frozen=True)
class EmbedSettings:
    """The embedder."""

    batch_images: PositiveInt | None = setting(
        None, "Images in one call of the model. None: the embedder finds it, starting from a value for the device."
    )
    max_pixels: PositiveInt = setting(
        200_000_000, "An image with more pixels is a decompression bomb, and is recorded as bad."
    )
    thumbnail_px: Annotated[int, Field(ge=16)] = setting(256, "Length of the longer side of a thumbnail, in pixels.")
