"""A PNG whose header promises any number of pixels: a decompression bomb of a hundred bytes."""

from __future__ import annotations

import struct
import zlib


def hollow_png(width: int, height: int) -> bytes:
    """One bit a pixel, and far fewer pixels than the header promises."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
