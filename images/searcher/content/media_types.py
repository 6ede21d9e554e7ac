"""The media type of an image file, by its first bytes. Its name may be wrong, and its bytes may be hostile."""

from __future__ import annotations

import io

from PIL import Image

MEDIA_TYPES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "DIB": "image/bmp",
    "GIF": "image/gif",
    "ICO": "image/x-icon",
    "JPEG": "image/jpeg",  # and MPO, which are several JPEGs
    "JPEG2000": "image/jp2",
    "PNG": "image/png",
    "PPM": "image/x-portable-anymap",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "TGA": "image/x-tga",
}
"""The formats of the images of an index. A browser runs no script in any of them, unlike in SVG. TGA is the last one,
because it has no signature."""
SIGNATURE_BYTES = 16
"""The bytes that Pillow gives to its signature checks."""


def media_type(data: bytes) -> str | None:
    """The media type, or None if the bytes are none of these formats. No pixel is decoded, so an image of any size has
    one, and a damaged one too."""
    Image.init()  # loads the formats once
    return next((type for format, type in MEDIA_TYPES.items() if _is_format(data, format)), None)


def _is_format(data: bytes, format: str) -> bool:
    try:
        reader, accept = Image.OPEN[format]
        if accept is not None:
            return accept(data[:SIGNATURE_BYTES]) is True
        # Its reader checks the header. `Image.open` would also check the limit of pixels, which a loaded model has set.
        with reader(io.BytesIO(data), ""):
            return True
    except Exception:  # Pillow's readers of hostile files raise anything
        return False
