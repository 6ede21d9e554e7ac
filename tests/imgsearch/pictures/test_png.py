"""Good pictures with something broken beside the pixels."""

from __future__ import annotations

import zlib

import pytest
from PIL import Image

from imgsearch.pictures.png import without_broken_extras
from tests.imgsearch.pictures.samples import colour, decode, encoded, near, noise, png_chunk, two_halves, with_chunk

LARGE = zlib.compress(bytes(3_000_000))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", b"garbage"),
        png_chunk(b"zTXt", b"Comment\0\0" + LARGE),
        png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
        png_chunk(b"iCCP", b"profile\0\0" + LARGE),
        png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"no profile")),
        png_chunk(b"tEXt", b"Comment\0hello", checksum=7),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0no zlib"),
        png_chunk(b"tIME", b""),
    ],
    ids=["exif", "long-ztxt", "long-itxt", "long-profile", "profile", "checksum", "no-zlib", "time"],
)
def test_what_is_broken_beside_the_pixels_is_ignored(chunk: bytes) -> None:
    clean = encoded(noise())
    assert decode(with_chunk(clean, chunk)).image.tobytes() == decode(clean).image.tobytes()


def test_a_wrong_checksum_of_the_pixels_is_told() -> None:
    data = bytearray(encoded(noise()))
    data[data.find(b"IDAT") + 10] ^= 1
    assert without_broken_extras(bytes(data)) == data


def test_transparency_and_orientation_are_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(two_halves(), exif=exif)).image.size == (20, 40)
    assert colour(encoded(two_halves(), transparency=(255, 0, 0))) == (255, 255, 255)
    assert colour(encoded(two_halves(), transparency=(255, 0, 0)), at=(37, 2)) == near(0, 0, 255)


def test_other_files_and_cut_files_are_returned_as_they_are() -> None:
    jpeg, png = encoded(noise(), "JPEG"), encoded(noise())
    assert without_broken_extras(jpeg) == jpeg
    assert without_broken_extras(png[:-20]) == png[:-20]
