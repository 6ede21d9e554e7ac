"""What is read of an image file, and what is not."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import pytest
from PIL import Image

from imgsearch.errors import BadImage
from tests.imgsearch.pictures.samples import colour, decode, encoded, near, noise, two_halves
from tests.pngs import hollow_png


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), each) for each in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colour(data) == near(255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(two_halves(), "JPEG", exif=exif, quality=95))
    turned = orientation >= 5
    assert (picture.width, picture.height) == ((20, 40) if turned else (40, 20))
    assert picture.image.size == (picture.width, picture.height)
    corner = {1: "red", 2: "blue", 3: "blue", 4: "red", 5: "red", 6: "red", 7: "blue", 8: "blue"}[orientation]
    red, _, blue = picture.image.getpixel((2, 2))  # type: ignore[misc]
    assert (red > blue) == (corner == "red")


def test_draft_keeps_twice_the_target_and_the_original_size() -> None:
    data = encoded(two_halves(size=(2000, 1500)), "JPEG")
    picture = decode(data, target=224)
    assert picture.image.size == (1000, 750)
    assert (picture.width, picture.height) == (2000, 1500)
    assert decode(data).image.size == (2000, 1500)


def test_draft_and_orientation_work_together() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode(encoded(two_halves(size=(2000, 1500)), "JPEG", exif=exif), target=224)
    assert picture.image.size == (750, 1000)
    assert (picture.width, picture.height) == (1500, 2000)


JPEG = encoded(two_halves(size=(200, 100)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 1000, "only zero bytes"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"error": 404}', "text"),
        (b"GIF89a", "supported format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a supported format"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:30], "."),
        (hollow_png(50_000, 50_000), "decompression bomb"),
    ],
)
def test_what_is_no_usable_image_is_bad_for_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode(data)
    assert caught.value.stage == "decode"
    assert caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM"])
def test_a_file_cut_or_damaged_anywhere_is_an_image_or_bad_never_another_error(format: str) -> None:
    whole = encoded(two_halves(size=(64, 64)), format)
    for cut in range(0, len(whole), max(1, len(whole) // 40)):
        flipped = bytearray(whole)
        flipped[cut] ^= 0xFF
        for data in (whole[:cut], bytes(flipped)):
            with contextlib.suppress(BadImage):
                decode(data)


def exif_of_a_broken_rational(orientation: int) -> bytes:
    """Orientation, and a resolution of −1 ÷ 0."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHII", 0x011A, 10, 1, 38)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<Iii", 0, -1, 0)


def test_an_image_with_a_broken_exif_value_is_turned() -> None:
    """Pillow#8965: its own turning writes all EXIF values again."""
    picture = decode(encoded(two_halves(), "JPEG", exif=exif_of_a_broken_rational(6), quality=95))
    assert (picture.width, picture.height) == (20, 40)
    assert picture.image.getpixel((2, 2)) == near(254, 0, 0)
    assert picture.image.getpixel((2, 37)) == near(0, 0, 254)


def test_exif_that_is_garbage_leaves_an_image_as_it_is() -> None:
    assert decode(encoded(two_halves(), "JPEG", exif=b"Exif\0\0garbage")).image.size == (40, 20)


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_without_its_end_marker_is_used(options: dict[str, bool], missing: int) -> None:
    data = encoded(noise(), "JPEG", **options)
    assert decode(data[:-missing]).image.tobytes() == decode(data).image.tobytes()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("missing", [10, 100, 3000])
def test_a_jpeg_without_some_of_its_pixels_is_bad(options: dict[str, bool], missing: int) -> None:
    with pytest.raises(BadImage, match="truncated"):
        decode(encoded(noise(), "JPEG", **options)[:-missing])


def test_no_file_starts_a_program_or_opens_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS runs Ghostscript, and IPTC may hold an EPS."""
    called = tmp_path / "called"
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {called}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    fields = {(3, 20): b"\0\0\0\x09", (3, 30): b"\0\0\0\x09", (3, 60): b"\1\1", (3, 65): b"\1", (3, 120): b"\5"}
    iptc = b"".join(struct.pack(">BBBH", 0x1C, *field, len(value)) + value for field, value in fields.items())
    for data in (eps, iptc + struct.pack(">BBBH", 0x1C, 8, 10, len(eps)) + eps):
        with pytest.raises(BadImage, match="not an image in a supported format"):
            decode(data)
    assert not called.exists()
