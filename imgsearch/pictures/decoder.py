"""Turns the bytes of an image file into upright RGB pixels, within a limit of pixels."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from PIL.ExifTags import Base

from imgsearch.errors import BadImage
from imgsearch.pictures import jpeg, png
from imgsearch.pictures.colours import rgb

FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",  # and MPO, which are several JPEGs
    "JPEG2000",
    "PNG",
    "PPM",
    "TGA",
    "TIFF",
    "WEBP",
)
"""The formats in which photos come. Pillow reads more, but some of its other readers start a program (EPS), open
formats inside of formats (IPTC, ICNS, BLP), or are seldom used and seldom attacked, so seldom mended."""

# Pillow warns of an image over its limit, and raises an error only at twice the limit.
warnings.simplefilter("error", Image.DecompressionBombWarning)
# An icon whose directory gives another size than the image is an icon all the same.
warnings.filterwarnings("ignore", "Image was not the expected size", module="PIL.IcoImagePlugin")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that makes an image of each EXIF orientation upright."""
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """One decoded image, upright, in RGB."""

    image: Image.Image
    """The pixels; it may be smaller than the original, see `Decoder.decode`."""
    width: int
    """Width and height of the original, upright, in pixels."""
    height: int


class Decoder:
    """Decodes images of at most `max_pixels` pixels. Pillow has one limit for a process, which also holds for images
    inside of an icon, so a process has one Decoder."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        Image.MAX_IMAGE_PIXELS = max_pixels

    def decode(self, data: bytes, *, target: int | None = None) -> Picture:
        """Decodes the first frame, turns it upright, converts its colours to sRGB, and puts transparent pixels over
        white. Broken metadata beside the pixels is ignored.

        With `target` (pixels), a JPEG is decoded at the smallest of libjpeg's scales (1, 1/2, 1/4, 1/8) at which both
        sides have at least twice `target`. This is much faster, and leaves enough pixels for the final resize.
        Raises BadImage("decode", …) for everything that is not a usable image.
        """
        if not data:
            raise BadImage("decode", "the file is empty")
        try:
            return self._decode_whole(png.without_broken_extras(data), target)
        except BadImage:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise BadImage("decode", self._too_large(str(error))) from None
        except UnidentifiedImageError:
            raise BadImage("decode", _unknown(data)) from None
        except Exception as error:  # decoders of hostile files raise anything; one file must not end the job
            raise BadImage("decode", f"{str(error) or type(error).__name__}") from error

    def _decode_whole(self, data: bytes, target: int | None) -> Picture:
        try:
            return self._decode(data, target)
        except OSError:  # Pillow's error for a file that is cut
            whole = jpeg.with_end(data)
            if whole is None:
                raise
            return self._decode(whole, target)

    def _decode(self, data: bytes, target: int | None) -> Picture:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            self._check_tiles(image)
            if target is not None:
                image.draft("RGB", (2 * target, 2 * target))
            image.load()
            pixels = rgb(image)
            orientation = _orientation(image)
        if orientation in _TURNS:
            pixels = pixels.transpose(_TURNS[orientation])
        if orientation in _SIDEWAYS:
            width, height = height, width
        return Picture(pixels, width, height)

    def _check_tiles(self, image: Image.Image) -> None:
        """A small TIFF may consist of one huge compressed tile, which libtiff decodes as a whole."""
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tile = [image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
            if tile[0] * tile[1] > self._max_pixels:
                raise BadImage("decode", self._too_large(f"{tile[0] * tile[1]} pixels"))

    def _too_large(self, message: str) -> str:
        count = re.search(r"\d+(?= pixels)", message)
        pixels = f"{int(count[0]):,} pixels are" if count else "it has"
        return f"{pixels} more than the limit of {self._max_pixels:,} (decompression bomb?)"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, as it is, where the EXIF data cannot be read."""
    with suppress(Exception):  # Pillow's readers of EXIF and XMP raise anything
        return int(image.getexif().get(Base.Orientation, 1))
    return 1


def _unknown(data: bytes) -> str:
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"{")):
        return "it is text (a web page, SVG or JSON), not an image in a supported format"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return "HEIC/HEIF is not supported: convert it to JPEG"
    if not data.strip(b"\0"):
        return "it contains only zero bytes"
    return "not an image in a supported format"
