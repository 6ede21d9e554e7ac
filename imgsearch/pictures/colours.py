"""Pixels of any mode as RGB, with the colours that a viewer shows."""

from __future__ import annotations

import hashlib
import io
import threading

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

_SRGB = ImageCms.createProfile("sRGB")
_LEVELS = 9
"""Values of each channel for which a colour profile is compared with sRGB."""
_TOLERANCE = 2
"""Difference up to which a profile counts as sRGB: the profiles of that name are not quite the same."""
_OUTLIERS = 0.1
"""Percent of the pixels that may be darker than black, and lighter than white, where the file defines neither."""
_SAMPLE = 1_000_000
"""Pixels from which black and white are chosen."""


def rgb(image: Image.Image) -> Image.Image:
    """A loaded image in sRGB. Transparent pixels lie over white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        image = Image.fromarray(_eight_bits(image))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_stretched(np.asarray(image, dtype=np.float32)))
    elif image.has_transparency_data:
        image = _over_white(image)
    elif image.mode == "P":
        image = image.convert("RGB")
    if profile:
        image = _to_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    if image.format in ("BMP", "DIB", "TGA") and rgba.getchannel("A").getextrema() == (0, 0):
        return rgba.convert("RGB")  # programs that write no alpha set these bytes to 0
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Greys of up to 16 bits. Pillow reads the values of a TIFF as they are: with 12 bits, or with white as 0."""
    values = np.asarray(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        values = values << (16 - bits)
        if image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            values = ~values
    return (values >> 8).astype(np.uint8)


def _stretched(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values outside 0…255 have no standard black and white, so the darkest becomes black and the brightest white, but
    for a few outliers."""
    sample = values.ravel()[:: max(1, values.size // _SAMPLE)]
    finite = sample[np.isfinite(sample)]
    low, high = np.percentile(finite, (_OUTLIERS, 100 - _OUTLIERS)) if finite.size else (0, 0)
    if low < 0 or high > 255 or high <= 1:
        values = (values - np.float32(low)) * np.float32(255 / max(high - low, 1e-12))
    return np.nan_to_num(values, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A profile that cannot be read, or is of other colours than the image, is ignored, as viewers do."""
    try:
        transform = _transform(profile, image.mode)
        return image if transform is None else ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image


@cached(LRUCache(64), key=lambda profile, mode: (hashlib.sha256(profile).digest(), mode), lock=threading.Lock())
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile to sRGB; None where that changes nothing that can be seen."""
    transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB, mode, "RGB")
    if mode == "RGB":
        levels = np.linspace(0, 255, _LEVELS).astype(np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(_LEVELS, -1, 3)
        converted = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
        if np.abs(converted.astype(int) - colours).max() <= _TOLERANCE:
            return None
    return transform
