"""Small copies of images, as the page and the API show them."""

from __future__ import annotations

import io

from PIL import Image


def thumbnail(image: Image.Image, px: int) -> bytes:
    """A WebP whose longer side has `px` pixels. A smaller image keeps its size.

    Bilinear scaling after a box reduction, and the fastest WebP method, take a third of the time of the best settings.
    The difference is not visible at this size."""
    scale = px / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5)
    sink = io.BytesIO()
    image.save(sink, "WEBP", quality=75, method=0)
    return sink.getvalue()
