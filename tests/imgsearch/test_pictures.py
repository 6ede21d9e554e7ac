from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from imgsearch.errors import BadImage
from imgsearch.pictures import decode, thumbnail
from tests.pngs import hollow_png

LIMIT = 10_000_000


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def two_halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, 0, *size))
    return image.convert(mode)


def colour(data: bytes, position: tuple[int, int] = (2, 2)) -> tuple[int, ...]:
    decoded = decode(data, max_pixels=LIMIT)
    assert decoded.image.mode == "RGB"
    return tuple(decoded.image.getpixel(position))  # type: ignore[arg-type]


def near(*expected: int) -> object:
    return pytest.approx(expected, abs=8)


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
    decoded = decode(encoded(image, "TIFF"), max_pixels=LIMIT).image
    assert (decoded.getpixel((0, 0)), decoded.getpixel((7, 7))) == ((0, 0, 0), (255, 255, 255))


def test_one_bit_is_black_and_white() -> None:
    assert colour(encoded(Image.new("1", (8, 8), 1))) == (255, 255, 255)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour_name) for colour_name in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colour(data) == near(255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(two_halves(), "JPEG", exif=exif, quality=95), max_pixels=LIMIT)
    turned = orientation >= 5
    assert (decoded.width, decoded.height) == ((20, 40) if turned else (40, 20))
    assert decoded.image.size == (decoded.width, decoded.height)
    corner = {1: "red", 2: "blue", 3: "blue", 4: "red", 5: "red", 6: "red", 7: "blue", 8: "blue"}[orientation]
    red, _, blue = decoded.image.getpixel((2, 2))  # type: ignore[misc]
    assert (red > blue) == (corner == "red")


def test_draft_keeps_twice_the_target_and_the_original_size() -> None:
    data = encoded(two_halves(size=(2000, 1500)), "JPEG")
    decoded = decode(data, max_pixels=LIMIT, target=224)
    assert decoded.image.size == (1000, 750)
    assert (decoded.width, decoded.height) == (2000, 1500)
    assert decode(data, max_pixels=LIMIT).image.size == (2000, 1500)


def test_draft_and_orientation_work_together() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(two_halves(size=(2000, 1500)), "JPEG", exif=exif), max_pixels=LIMIT, target=224)
    assert decoded.image.size == (750, 1000)
    assert (decoded.width, decoded.height) == (1500, 2000)


JPEG = encoded(two_halves(size=(200, 100)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 1000, "only zero bytes"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"error": 404}', "text"),
        (b"GIF89a", "Pillow"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:30], "."),
        (hollow_png(50_000, 50_000), "decompression bomb"),
    ],
)
def test_what_is_no_usable_image_is_bad_for_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode(data, max_pixels=LIMIT)
    assert caught.value.stage == "decode"
    assert caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM"])
def test_a_file_cut_or_damaged_anywhere_is_an_image_or_bad_never_another_error(format: str) -> None:
    encoded_image = encoded(two_halves(size=(64, 64)), format)
    for position in range(0, len(encoded_image), max(1, len(encoded_image) // 40)):
        flipped = bytearray(encoded_image)
        flipped[position] ^= 0xFF
        for data in (encoded_image[:position], bytes(flipped)):
            with contextlib.suppress(BadImage):
                decode(data, max_pixels=LIMIT)


@pytest.mark.parametrize(("size", "expected"), [((1000, 500), (256, 128)), ((30, 20), (30, 20)), ((5000, 3), (256, 1))])
def test_a_thumbnail_keeps_the_ratio_and_never_grows(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(thumbnail(Image.new("RGB", size), 256)))
    assert image.size == expected
    assert image.format == "WEBP"
