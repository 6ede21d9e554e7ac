"""Files that hold more pixels than their header says, in a process whose memory is limited."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial

import pytest
from PIL import Image

from imgsearch.pictures.decoder import FORMATS
from tests.imgsearch.pictures.samples import encoded, tiff

LIMIT = 100_000
SIDE = 4000
"""Pixels of a side of the real images: 16 million pixels, which Pillow holds in 64 MB."""
MEMORY = 32_000_000
"""Bytes that a process may use for an image of LIMIT pixels, beside what it has begun with."""
DECODE = f"""
import resource, sys
from imgsearch.errors import BadImage
from imgsearch.pictures import Decoder
decoder = Decoder({LIMIT})
data = sys.stdin.buffer.read()
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + {MEMORY},) * 2)
try:
    decoder.decode(data, target=64)
except BadImage as bad:
    print(bad.reason)
"""


def large(mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (SIDE, SIDE))


def icon(content: bytes) -> bytes:
    """An icon of 16 × 16 pixels by its directory."""
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(content), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + content


def icon_of_a_large_bitmap() -> bytes:
    return icon(struct.pack("<IiiHHIIiiII", 40, SIDE, 2 * SIDE, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(100))


def tiff_of_one_large_tile() -> bytes:
    """100 × 100 pixels in a compressed tile of 4 000 × 4 000."""
    side = SIDE // 16 * 16
    tile = zlib.compress(bytes(side * side), 1)
    return tiff({256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}, tile)


def jpeg2000_with_another_header() -> bytes:
    data = bytearray(encoded(large("L"), "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[1000]))
    struct.pack_into(">II", data, data.find(b"ihdr") + 4, 100, 100)
    return bytes(data)


def gif_with_a_frame_larger_than_its_screen() -> bytes:
    data = bytearray(encoded(large("P"), "GIF"))
    struct.pack_into("<HH", data, 6, 100, 100)
    return bytes(data)


def webp_with_another_canvas() -> bytes:
    frame = encoded(large(), "WEBP", lossless=True, method=0)[12:]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (99).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(frame)) + b"WEBP" + canvas + frame


LARGE: dict[str, Callable[[], bytes]] = {
    **{format: partial(encoded, large(), format) for format in ("BMP", "DIB", "JPEG", "PNG", "PPM", "TGA", "TIFF")},
    "WEBP": webp_with_another_canvas,
    "GIF": gif_with_a_frame_larger_than_its_screen,
    "JPEG2000": jpeg2000_with_another_header,
    "ICO": lambda: icon(encoded(large("1"), "PNG")),
    "ICO of a bitmap": icon_of_a_large_bitmap,
    "TIFF of one tile": tiff_of_one_large_tile,
    "AVIF": lambda: encoded(Image.new("L", (1000, 1000)), "AVIF"),
}


def test_every_format_is_tried() -> None:
    assert set(FORMATS) <= set(LARGE)


@pytest.mark.parametrize("name", LARGE)
def test_an_image_over_the_limit_is_refused_before_it_is_decoded(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", DECODE], input=LARGE[name](), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    reason = done.stdout.decode()
    assert any(word in reason for word in ("more than the limit", "broken", "could not create")), reason or "it is used"
