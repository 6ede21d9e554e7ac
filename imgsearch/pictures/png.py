"""PNG files without their broken metadata, which Pillow takes for a broken image.

Format: https://www.w3.org/TR/png-3/#5DataRep
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_INFLATED = 1 << 20
"""Bytes of a colour profile or a text. Pillow refuses an image with more."""
_EXIF_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""Keywords of the texts in which Pillow finds an image's orientation."""


def without_broken_extras(data: bytes) -> bytes:
    """The file with all critical chunks as they are, and with those others only that change how the pixels look and are
    intact: transparency, the colour profile, and the orientation. Other files are returned unchanged."""
    if not data.startswith(_SIGNATURE):
        return data
    kept = [_SIGNATURE]
    end = len(_SIGNATURE)
    for kind, start, end in _chunks(data):
        if kind[0:1].isupper() or _is_useful(kind, data[start + 8 : end - 4], data[end - 4 : end]):
            kept.append(data[start:end])
    kept.append(data[end:])
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each whole chunk, up to the first that is cut."""
    start = len(_SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end


def _is_useful(kind: bytes, content: bytes, checksum: bytes) -> bool:
    if zlib.crc32(kind + content).to_bytes(4, "big") != checksum:
        return False
    if kind in (b"tRNS", b"eXIf"):
        return True
    keyword, _, rest = content.partition(b"\0")
    if kind == b"iCCP" or (kind == b"zTXt" and keyword in _EXIF_TEXTS):
        return _inflates(rest[1:])
    if kind == b"iTXt" and keyword in _EXIF_TEXTS:
        return rest[:1] == b"\0" and len(rest) <= _MAX_INFLATED
    return kind == b"tEXt" and keyword in _EXIF_TEXTS


def _inflates(compressed: bytes) -> bool:
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(compressed, _MAX_INFLATED)
    except zlib.error:
        return False
    return inflater.eof
