"""The images behind the results: what is sent of them, when, and to whom nothing."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from imgsearch.runs.layout import RunFolder, image_id
from tests.fakes import InMemorySource
from tests.searcher.library import Library, picture, problem
from tests.searcher.process import SearcherProcess, wait_for_text

pytestmark = pytest.mark.anyio

RED = f"/v1/images/{image_id('red.png')}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearcherProcess]:
    """With a file beside its storage, which nobody may read."""
    folder = tmp_path_factory.mktemp("searcher")
    (folder / "secret.txt").write_text("top secret")
    with SearcherProcess(folder / "storage") as server:
        wait_for_text(server.url, "/readyz", "ready")
        yield server


async def test_an_original_is_the_file_in_its_source(gallery: Library) -> None:
    async with gallery.serving() as client:
        response = await client.get(RED)
        assert response.content == gallery.sources["/data/photos"].read("red.png")
        assert response.headers["content-type"] == "image/png"
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_thumbnail_is_a_small_webp_of_its_image(gallery: Library) -> None:
    async with gallery.serving() as client:
        for colour, expected in [("red", (255, 0, 0)), ("blue", (0, 0, 255))]:
            response = await client.get(f"/v1/images/{image_id(colour + '.png')}/thumbnail?index=photos")
            assert response.headers["content-type"] == "image/webp"
            pixel = Image.open(io.BytesIO(response.content)).convert("RGB").getpixel((4, 3))
            assert isinstance(pixel, tuple)
            assert all(abs(a - b) < 40 for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize("path", [RED, RED + "/thumbnail"])
async def test_a_copy_that_the_browser_has_is_not_sent_again(gallery: Library, path: str) -> None:
    async with gallery.serving() as client:
        first = await client.get(path)
        assert first.headers["cache-control"] == "private, max-age=300"
        for etags in (f'W/"other", {first.headers["etag"]}', f"W/{first.headers['etag']}", "*"):
            second = await client.get(path, headers={"If-None-Match": etags})
            assert (second.status_code, second.content) == (304, b"")
            assert second.headers["etag"] == first.headers["etag"]
            assert second.headers["cache-control"] == first.headers["cache-control"]
        bare_etag = first.headers["etag"][1:-2]
        assert (await client.get(path, headers={"If-None-Match": f'"{bare_etag}"'})).status_code == 200
        problem(await client.get(path.replace(image_id("red.png"), "nobody"), headers={"If-None-Match": "*"}), 404)


async def test_another_original_has_another_etag_though_the_run_is_the_same(gallery: Library) -> None:
    async with gallery.serving() as client:
        first = await client.get(RED)
        gallery.sources["/data/photos"].replace("red.png", picture("green"))
        second = await client.get(RED, headers={"If-None-Match": first.headers["etag"]})
        assert (second.status_code, second.content) == (200, picture("green"))
        range_headers = {"Range": "bytes=10-", "If-Range": first.headers["etag"]}
        assert (await client.get(RED, headers=range_headers)).content == picture("green")


async def test_a_thumbnail_of_the_next_run_has_another_etag(gallery: Library) -> None:
    path = RED + "/thumbnail"
    async with gallery.serving() as client:
        headers = {"If-None-Match": (await client.get(path)).headers["etag"]}
    gallery.publish(run="r2")
    async with gallery.serving() as client:
        assert (await client.get(path, headers=headers)).status_code == 200


async def test_the_pictures_of_a_result_may_be_kept_for_ever(gallery: Library) -> None:
    async with gallery.serving() as client:
        (result,) = (await client.post("/v1/search", json={"text": "red", "k": 1})).json()["results"]
        for path in (result["image"], result["thumbnail"]):
            response = await client.get(path)
            assert response.status_code == 200
            assert response.headers["cache-control"] == "private, max-age=31536000, immutable"


@pytest.mark.parametrize("kind", ["", "/thumbnail"])
async def test_the_pictures_of_a_result_stay_those_of_its_run(gallery: Library, kind: str) -> None:
    first = gallery.store.pointers()["photos"]
    second = gallery.publish({"red.png": "blue"}, run="r2", previous=first, source="/data/newer")
    async with gallery.serving() as client:
        old_run, new_run = [await client.get(f"{RED}{kind}?index=photos&run={run}") for run in ("r1", "r2")]
        assert (old_run.status_code, new_run.status_code) == (200, 200)
        assert old_run.content != new_run.content
        assert new_run.content == (await client.get(RED + kind)).content
        gallery.publish(run="r3", previous=second)
        assert '"r1"' in problem(await client.get(f"{RED}{kind}?index=photos&run=r1"), 410)


@pytest.mark.parametrize("path", [RED, RED + "/thumbnail", "/image/red.png"])
def test_a_part_comes_over_http(server: SearcherProcess, path: str) -> None:
    with httpx.Client(base_url=server.url) as client:
        response = client.get(path)
        size = len(response.content)
        assert response.headers["accept-ranges"] == "bytes"
        partial = client.get(path, headers={"Range": "bytes=4-", "If-Range": response.headers["etag"]})
        assert (partial.status_code, partial.content) == (206, response.content[4:])
        assert partial.headers["content-range"] == f"bytes 4-{size - 1}/{size}"
        assert client.get(path, headers={"Range": "bytes=-7"}).content == response.content[-7:]
        assert client.get(path, headers={"Range": "bytes=0-1,4-5"}).content == response.content
        unsatisfied = client.get(path, headers={"Range": f"bytes={size}-"})
        assert f"{size:,} bytes" in problem(unsatisfied, 416)
        assert unsatisfied.headers["content-range"] == f"bytes */{size}"


UPWARDS = [
    "../secret.txt",
    "../../etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "..%2Fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "..%252fsecret.txt",
    "..%5Csecret.txt",
    "..\\secret.txt",
    "....//secret.txt",
    "./../secret.txt",
    "red.png/../../secret.txt",
    "red.png%00.txt",
    "file:///etc/passwd",
    "..%c0%afsecret.txt",
    "thumbnail/../../../secret.txt",
]


@pytest.mark.parametrize("name", UPWARDS)
@pytest.mark.parametrize(
    "route",
    [
        "/v1/images/{}",
        "/v1/images/{}/thumbnail",
        "/image/{}",
        "/page/{}",
        "/docs/{}",
        "/{}",
        "/v1/map/sprite?run={}",
        "/v1/facets?run={}",
        "/v1/facets?index={}",
        "/v1/images/" + image_id("red.png") + "?run={}",
        "/v1/images/" + image_id("red.png") + "/thumbnail?index={}",
    ],
)
def test_no_path_leads_to_another_file(server: SearcherProcess, route: str, name: str) -> None:
    """Sent as it is: a client of ours would tidy the path first."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", route.format(name))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    assert response.status in (404, 410), body
    assert b"top secret" not in body
    assert b"root:" not in body


@pytest.mark.parametrize("id", ["nobody", "..%2F..%2Fetc%2Fpasswd", "%00", "caf%C3%A9", "a" * 5000])
@pytest.mark.parametrize("kind", ["", "/thumbnail"])
async def test_what_is_no_id_is_not_found(gallery: Library, id: str, kind: str) -> None:
    async with gallery.serving() as client:
        problem(await client.get(f"/v1/images/{id}{kind}"), 404)


async def test_a_source_that_is_not_reachable_from_here_leaves_the_thumbnails(gallery: Library) -> None:
    gallery.sources.clear()
    async with gallery.serving() as client:
        assert "/data/photos" in problem(await client.get(RED), 404)
        assert (await client.get(RED + "/thumbnail")).status_code == 200


@pytest.mark.parametrize("data", [b"<html><script>alert(1)</script>", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n", b""])
async def test_what_became_of_an_image_that_is_none_is_not_served(gallery: Library, data: bytes) -> None:
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {"red.png": data})
    async with gallery.serving() as client:
        problem(await client.get(RED), 404)
        assert (await client.get(RED + "/thumbnail")).status_code == 200


async def test_thumbnails_that_were_removed_are_not_found(gallery: Library) -> None:
    gallery.storage.delete(RunFolder("r1").root)
    async with gallery.serving() as client:
        assert "thumbs-00000.tar" in problem(await client.get(RED + "/thumbnail"), 404)


async def test_an_image_of_a_cameras_kind_of_jpeg_is_called_a_jpeg(gallery: Library) -> None:
    sink = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(sink, "MPO", save_all=True, append_images=frames[1:])
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {"red.png": sink.getvalue()})
    async with gallery.serving() as client:
        assert (await client.get(RED)).headers["content-type"] == "image/jpeg"


async def test_a_file_whose_end_is_missing_is_sent_as_it_is(gallery: Library) -> None:
    """Browsers show what there is of it."""
    truncated = picture("red")[:60]
    gallery.sources["/data/photos"] = InMemorySource("/data/photos", {"red.png": truncated})
    async with gallery.serving() as client:
        assert (await client.get(RED)).content == truncated
