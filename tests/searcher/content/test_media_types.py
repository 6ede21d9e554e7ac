"""The media type of an original, whatever its bytes and its name are: a safe one, or a typed error."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgsearch.errors import BadImage
from imgsearch.pictures.decoder import FORMATS, Decoder
from imgsearch.runs.layout import image_id
from searcher.content.media_types import MEDIA_TYPES, media_type
from tests.fakes import InMemorySource
from tests.searcher.library import Library, picture, problem

pytestmark = pytest.mark.anyio

SAFE = set(MEDIA_TYPES.values())
FILES = {format: picture(format=format) for format in FORMATS}
OTHERS = [b"<html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<?xml version='1.0'?>"]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """A copy with some other bytes in its head, perhaps cut."""
    copy = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        copy[generator.randrange(min(len(copy), 200))] = generator.choice([0, 255, generator.randrange(256)])
    return bytes(copy[: generator.randrange(len(copy))] if generator.random() < 0.3 else copy)


def test_every_format_of_an_index_has_a_media_type() -> None:
    assert set(MEDIA_TYPES) == set(FORMATS)
    assert {format: media_type(data) for format, data in FILES.items()} == MEDIA_TYPES
    assert not any("svg" in type or "xml" in type for type in SAFE)


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_image_has_a_safe_type_or_none(format: str) -> None:
    generator = random.Random(format)
    types = {media_type(mutated(FILES[format], generator)) for _ in range(400)}
    assert types <= {*SAFE, None}
    assert MEDIA_TYPES[format] in types


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=64), st.sampled_from([*OTHERS, b""])))
def test_any_bytes_have_a_safe_type_or_none(data: bytes) -> None:
    assert media_type(data) in {*SAFE, None}


@pytest.mark.parametrize("data", [*OTHERS, b"", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x8aMNG\r\n\x1a\n" * 4])
def test_another_file_has_no_type(data: bytes) -> None:
    assert media_type(data) is None


def test_an_image_above_the_limit_of_pixels_has_a_type() -> None:
    """It was indexed with a higher limit. Nothing decodes it here."""
    sink = io.BytesIO()
    Image.new("1", (100_000, 2_000)).save(sink, "PNG")
    assert media_type(sink.getvalue()) == "image/png"


def test_an_image_without_a_signature_has_a_type_above_the_limit_of_the_decoder() -> None:
    """The limit is of the process, and a loaded model sets it."""
    sink = io.BytesIO()
    Image.new("L", (8000, 7000)).save(sink, "TGA", compression="tga_rle")
    previous = Image.MAX_IMAGE_PIXELS
    try:
        with pytest.raises(BadImage, match="pixels"):
            Decoder(max_pixels=50_000_000).decode(sink.getvalue())
        assert media_type(sink.getvalue()) == "image/x-tga"
    finally:
        Image.MAX_IMAGE_PIXELS = previous


NAMES = [
    "red.html",
    "a\r\nContent-Type: text/html.png",
    "<script>alert(1)</script>.png",
    "ein Bild.png",
    "ß\u202egnp.exe",
    "a%2Fb%00.png",
    "#1?x=y.png",
    ".." + "/x" * 300 + ".png",
    "\x1b]0;title\x07.png",
    "\U0001f4f7.png",
]


async def test_every_original_is_a_safe_image_or_a_problem(gallery: Library) -> None:
    generator = random.Random(1)
    gallery.publish(dict.fromkeys(NAMES, "red"), index="hostile", run="h1")
    statuses = set()
    async with gallery.serving() as client:
        for name in NAMES:
            damaged = [mutated(FILES[generator.choice(FORMATS)], generator) for _ in range(40)]
            for data in [picture("red"), *OTHERS, b"", *damaged]:
                gallery.sources["/data/hostile"].replace(name, data)
                response = await client.get(f"/v1/images/{image_id(name)}?index=hostile")
                statuses.add(response.status_code)
                if response.status_code == 200:
                    assert response.headers["content-type"] in SAFE
                    assert response.headers["x-content-type-options"] == "nosniff"
                    assert response.content == data
                else:
                    assert "no longer an image" in problem(response, 404)
    assert statuses == {200, 404}


async def test_an_original_that_is_gone_or_unreadable_is_a_problem(gallery: Library) -> None:
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {})
    async with gallery.serving() as client:
        problem(await client.get(f"/v1/images/{image_id('red.png')}"), 404)
        problem(await client.get("/image/red.png"), 404)
