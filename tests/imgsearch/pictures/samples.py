"""Small images, and how they look after they are decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image

from imgsearch.pictures import Decoder, Picture

LIMIT = 10_000_000


def decode(data: bytes, *, target: int | None = None) -> Picture:
    return Decoder(LIMIT).decode(data, target=target)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def two_halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, 0, *size))
    return image.convert(mode)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))


def colour(data: bytes, at: tuple[int, int] = (2, 2)) -> tuple[int, ...]:
    picture = decode(data)
    assert picture.image.mode == "RGB"
    return tuple(picture.image.getpixel(at))  # type: ignore[arg-type]


def near(*expected: int) -> object:
    return pytest.approx(expected, abs=8)


def png_chunk(kind: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(png: bytes, chunk: bytes) -> bytes:
    """The PNG with the chunk after its header."""
    return png[:33] + chunk + png[33:]


def tiff(tags: Mapping[int, int], samples: bytes) -> bytes:
    """A TIFF of one strip or tile. `tags`: all but its place and its length."""
    kind = 324 if 322 in tags else 273  # TileOffsets, else StripOffsets; the byte counts
    place = {kind: 8 + 2 + 12 * (len(tags) + 2) + 4, {324: 325, 273: 279}[kind]: len(samples)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted({**tags, **place}.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 2) + entries + bytes(4) + samples
