"""Colours are those that a viewer shows."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.imgsearch.pictures.samples import colour, decode, encoded, near, tiff, two_halves


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "LAB"])
def test_colours_survive_every_mode(mode: str) -> None:
    format = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    image = two_halves("RGB")
    if mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(image, transform) or image
    else:
        image = image.convert(mode)
    assert colour(encoded(image, format)) == pytest.approx((255, 0, 0), abs=40)


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    red, green, blue = colour(encoded(two_halves("CMYK"), "JPEG", quality=95))
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    assert colour(encoded(image, "PNG")) == (255, 255, 255)


def test_a_palette_with_a_transparent_entry_is_white_there() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 0])
    assert colour(encoded(image, transparency=1)) == (255, 255, 255)


def test_sixteen_bits_keep_their_greys() -> None:
    image = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert image.mode.startswith("I;16")
    assert colour(encoded(image)) == near(128, 128, 128)


def test_floats_are_stretched_from_black_to_white() -> None:
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    picture = decode(encoded(image, "TIFF")).image
    assert (picture.getpixel((0, 0)), picture.getpixel((7, 7))) == ((0, 0, 0), (255, 255, 255))


def test_one_bit_is_black_and_white() -> None:
    assert colour(encoded(Image.new("1", (8, 8), 1))) == (255, 255, 255)


def test_alpha_that_is_zero_everywhere_is_no_alpha() -> None:
    """Programs that write no alpha set it to 0, and viewers show the colours."""
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert colour(encoded(image, "TGA")) == (255, 0, 0)
    header = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, 0, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    dib = (header + masks).ljust(108, b"\0") + bytes([0, 0, 255, 0]) * 64
    assert colour(b"BM" + struct.pack("<IHHI", 14 + len(dib), 0, 0, 14 + 108) + dib) == (255, 0, 0)


def test_alpha_that_differs_is_alpha() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((7, 7), (255, 0, 0, 255))
    assert colour(encoded(image, "TGA")) == (255, 255, 255)
    assert colour(encoded(image, "TGA"), at=(7, 7)) == (255, 0, 0)


def greys(bits: int, photometric: int, samples: bytes) -> bytes:
    """A TIFF of 8 × 8 pixels."""
    return tiff({256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 8}, samples)


def test_twelve_bits_keep_their_greys() -> None:
    assert colour(greys(12, 1, bytes([0x80, 0x08, 0x00]) * 32)) == near(128, 128, 128)


def test_sixteen_bits_with_white_as_zero_are_no_negative() -> None:
    assert colour(greys(16, 0, struct.pack("<64H", *[0xF000] * 64))) == near(15, 15, 15)
    assert colour(greys(16, 1, struct.pack("<64H", *[0xF000] * 64))) == near(240, 240, 240)


@pytest.mark.parametrize("outlier", [1e9, -1e9, np.inf, -np.inf, np.nan])
def test_one_float_outlier_leaves_the_rest_as_it_is(outlier: float) -> None:
    values = np.tile(np.linspace(0, 1000, 100, dtype=np.float32), (100, 1))
    values[50, 50] = outlier
    image = decode(encoded(Image.fromarray(values), "TIFF")).image
    assert image.getpixel((0, 0)) == near(0, 0, 0)
    assert image.getpixel((49, 20)) == near(126, 126, 126)
    assert image.getpixel((99, 99)) == near(255, 255, 255)


ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""The primaries of Adobe RGB (1998) as XYZ, adapted to D50: columns of red, green and blue."""
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
GAMMA = 2.2


def profile(primaries: NDArray[np.float64]) -> bytes:
    """An ICC profile of three primaries and one gamma (ICC.1:2001-04)."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(GAMMA * 256)) + bytes(2)
    text = b"test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + text,
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249),
    }
    for column, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*primaries[:, column])
        tags[name + b"TRC"] = curve
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    size = struct.pack(">I", 128 + len(table) + len(data))
    header = size + bytes(4) + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return header + fixed(0.9642, 1, 0.8249) + bytes(48) + table + data


def srgb(pixel: tuple[int, int, int], primaries: NDArray[np.float64]) -> list[int]:
    """The same colour in sRGB, by the standard's formula (IEC 61966-2-1)."""
    linear = np.linalg.inv(SRGB) @ primaries @ (np.array(pixel) / 255) ** GAMMA
    linear = linear.clip(0, 1)
    return [round(255 * (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055)) for x in linear]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("pixel", [(200, 60, 60), (60, 200, 60), (90, 110, 220), (128, 128, 128)])
def test_colours_of_a_wide_profile_become_those_of_srgb(format: str, pixel: tuple[int, int, int]) -> None:
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "JPEG" else {}
    data = encoded(Image.new("RGB", (8, 8), pixel), format, icc_profile=profile(ADOBE), **options)
    assert colour(data) == pytest.approx(srgb(pixel, ADOBE), abs=3)


def test_transparent_pixels_of_a_wide_profile_are_white() -> None:
    data = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), icc_profile=profile(ADOBE))
    assert colour(data) == (255, 255, 255)


def test_a_profile_of_srgb_changes_no_pixel() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(encoded(image, icc_profile=own)).image.tobytes() == image.tobytes()


def test_a_profile_of_other_colours_than_the_image_is_ignored() -> None:
    assert colour(encoded(two_halves("CMYK"), "TIFF", icc_profile=profile(ADOBE))) == near(254, 0, 0)
    assert colour(encoded(two_halves(), icc_profile=b"garbage")) == (255, 0, 0)


def test_a_profile_that_is_no_bytes_is_ignored() -> None:
    """A TIFF may give its profile any type: here it is a number."""
    grey = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8, 34675: 7}
    assert colour(tiff(grey, bytes([128]) * 64)) == (128, 128, 128)


def test_an_animation_and_a_palette_have_the_colours_of_their_profile() -> None:
    pixel = (200, 60, 60)
    image = Image.new("RGB", (8, 8), pixel).convert("P", palette=Image.Palette.ADAPTIVE)
    assert colour(encoded(image, icc_profile=profile(ADOBE))) == pytest.approx(srgb(pixel, ADOBE), abs=3)
