from __future__ import annotations

import io

import pytest
from PIL import Image

from imgsearch.layout import RunFolder, image_id
from tests.fakes import InMemorySource
from tests.searcher.library import Library, picture, problem

pytestmark = pytest.mark.anyio

RED = f"/v1/images/{image_id('red.png')}"


async def test_an_original_is_the_file_in_its_source(gallery: Library) -> None:
    async with gallery.serving() as client:
        answer = await client.get(RED)
        assert answer.content == gallery.sources["/data/photos"].read("red.png")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_thumbnail_is_a_small_webp_of_its_image(gallery: Library) -> None:
    async with gallery.serving() as client:
        for colour, nearest in [("red", (255, 0, 0)), ("blue", (0, 0, 255))]:
            answer = await client.get(f"/v1/images/{image_id(colour + '.png')}/thumbnail?index=photos")
            assert answer.headers["content-type"] == "image/webp"
            pixel = Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((4, 3))
            assert isinstance(pixel, tuple)
            assert all(abs(a - b) < 40 for a, b in zip(pixel, nearest, strict=True))


@pytest.mark.parametrize("path", [RED, RED + "/thumbnail"])
async def test_a_copy_that_the_browser_has_is_not_sent_again_until_the_next_run(gallery: Library, path: str) -> None:
    async with gallery.serving(refresh_seconds=3600) as client:
        first = await client.get(path)
        known = {"If-None-Match": f'W/"other", {first.headers["etag"]}'}
        again = await client.get(path, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    gallery.publish(run="r2")
    async with gallery.serving() as client:
        assert (await client.get(path, headers=known)).status_code == 200


@pytest.mark.parametrize("id", ["nobody", "..%2F..%2Fetc%2Fpasswd", "%00", "caf%C3%A9", "a" * 5000])
@pytest.mark.parametrize("kind", ["", "/thumbnail"])
async def test_what_is_no_id_is_not_found(gallery: Library, id: str, kind: str) -> None:
    async with gallery.serving() as client:
        problem(await client.get(f"/v1/images/{id}{kind}"), 404)


async def test_a_source_that_is_not_reachable_from_here_leaves_the_thumbnails(gallery: Library) -> None:
    gallery.sources.clear()
    async with gallery.serving() as client:
        assert "/data/photos is not there" in problem(await client.get(RED), 404)
        assert (await client.get(RED + "/thumbnail")).status_code == 200


@pytest.mark.parametrize("data", [b"<html><script>alert(1)</script>", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n", b""])
async def test_what_became_of_an_image_that_is_none_is_not_served(gallery: Library, data: bytes) -> None:
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {"red.png": data})
    async with gallery.serving() as client:
        assert "the original cannot be had" in problem(await client.get(RED), 404)


async def test_thumbnails_that_were_removed_are_not_found(gallery: Library) -> None:
    gallery.storage.delete(RunFolder("r1").root)
    async with gallery.serving() as client:
        assert "thumbs-00000.tar is not there" in problem(await client.get(RED + "/thumbnail"), 404)


async def test_an_image_of_a_cameras_kind_of_jpeg_is_called_a_jpeg(gallery: Library) -> None:
    sink = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(sink, "MPO", save_all=True, append_images=frames[1:])
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {"red.png": sink.getvalue()})
    async with gallery.serving() as client:
        assert (await client.get(RED)).headers["content-type"] == "image/jpeg"


async def test_a_file_whose_end_is_missing_is_sent_as_it_is(gallery: Library) -> None:
    """Browsers show what there is of it."""
    half = picture("red")[:60]
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {"red.png": half})
    async with gallery.serving() as client:
        assert (await client.get(RED)).content == half
