"""200 files, 23 of them hostile: each is searchable, or in the list of bad images with a reason."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import DEMO_MODEL
from tests.pngs import hollow_png
from tests.programs import controller, serving

COUNT = 200
HOSTILE = 23


@dataclass(frozen=True)
class Indexed:
    """The result of `run-pipeline`."""

    home: Path
    folder: Path
    output: str
    errors: str


def plain_image(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((320, 240), Image.Resampling.BICUBIC)


def icon(side: int, content: bytes) -> bytes:
    """An icon file whose directory promises one image of `side` × `side` pixels, and which holds `content`."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, side, side, 0, 0, 1, 32, len(content), 22) + content


def write_hostile_images(folder: Path) -> dict[str, str]:
    """Makes the hostile files. Returns by name a part of the expected reason (`.`: any reason), or "" if the image is
    usable."""
    jpeg = io.BytesIO()
    plain_image(900).save(jpeg, "JPEG")
    outside_file = folder.parent / "outside.jpg"
    outside_file.write_bytes(jpeg.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    reasons: dict[str, str] = {}

    def file(name: str, data: bytes, reason: str = "") -> None:
        (folder / name).write_bytes(data)
        reasons[name] = reason

    def image(name: str, value: Image.Image, **options: object) -> None:
        value.save(folder / name, **options)
        reasons[name] = ""

    file("h-truncated.jpg", jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "truncated")
    file("h-truncated.png", hollow_png(64, 64)[:45], ".")
    file("h-empty.jpg", b"", "empty")
    file("h-zeros.jpg", bytes(5000), "zero bytes")
    file("h-page.jpg", b"<!DOCTYPE html><html><body>Not found</body></html>", "web page")
    file("h-bomb.png", hollow_png(50_000, 50_000), "decompression bomb")
    file("h-random.webp", np.random.default_rng(1).bytes(3000), "not an image")
    image("h-cmyk.jpg", plain_image(901).convert("CMYK"))
    image("h-palette.png", plain_image(902).quantize(16), transparency=0)
    image("h-16bit.png", Image.fromarray(np.linspace(0, 65535, 10_000, dtype=np.uint16).reshape(100, 100)))
    image("h-rotated.jpg", plain_image(903), exif=exif)
    image("h-animated.gif", plain_image(904), save_all=True, append_images=[plain_image(905)])
    image("h-alpha.png", plain_image(906).convert("RGBA"))
    image("h-onebit.png", plain_image(907).convert("1"))
    image("h-la.png", plain_image(908).convert("LA"))
    image("h Käse & Brötchen [1] #1?.jpg", plain_image(909))
    image("h-tiny.png", Image.new("RGB", (1, 1), "red"))
    (folder / "h-out.jpg").symlink_to(outside_file)
    reasons["h-out.jpg"] = "leads out"
    (folder / "h-broken.jpg").symlink_to("nowhere.jpg")
    reasons["h-broken.jpg"] = "."
    os.mkfifo(folder / "h-pipe.jpg")  # root reads any file, but nobody an image from a pipe
    reasons["h-pipe.jpg"] = "."
    image("h-narrow.png", Image.new("RGB", (1, 40_000), "red"))
    image("h-wide.png", Image.new("RGB", (8000, 1), "red"))
    file("h-bomb.ico", icon(16, hollow_png(16_000, 16_000)), "decompression bomb")
    assert len(reasons) == HOSTILE
    return reasons


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("hostile") / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(COUNT - HOSTILE):
        inside = folder / ("deep/er" if number % 3 == 0 else "")
        plain_image(number).save(inside / f"photo-{number:03d}.jpg", quality=88)
    reasons = write_hostile_images(folder)
    metadata = [
        {"file_name": f"photo-{n:03d}.jpg", "n": n, "tags": ["odd"] if n % 2 else ["even", "x"]} for n in (1, 2)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metadata))
    (folder / "notes.txt").write_text("not an image, and not called one")
    return folder, reasons


@pytest.fixture(scope="module")
def indexed_home(expected: tuple[Path, dict[str, str]]) -> Indexed:
    folder, _ = expected
    home = folder.parent / "home"
    completed = controller(
        "run-pipeline", folder, "--local", "--home", home, "--model", DEMO_MODEL, "--shard-size", "100"
    )
    assert completed.returncode == 0, completed.stderr
    return Indexed(home, folder, completed.stdout, completed.stderr)


@pytest.fixture(scope="module")
def client(indexed_home: Indexed) -> Iterator[httpx.Client]:
    with serving(indexed_home.home) as http_client:
        yield http_client


def test_searchable_and_bad_make_up_the_whole(indexed_home: Indexed, expected: tuple[Path, dict[str, str]]) -> None:
    reasons = expected[1]
    report = json.loads(controller("report", "--home", indexed_home.home, "-o", "json").stdout)
    rows = {
        row["key"]: row["reason"]
        for row in csv.DictReader(io.StringIO(controller("report", "--bad", "--home", indexed_home.home).stdout))
    }
    assert report["images"] + report["bad"] == COUNT
    assert rows.keys() == {name for name, reason in reasons.items() if reason}
    for name, reason in rows.items():
        assert reason
        if reasons[name] != ".":
            assert reasons[name] in reason
    assert report["skipped"] == {".txt files": 1}
    assert f"{report['images']} images searchable, {report['bad']} could not be used" in indexed_home.output


def test_an_image_finds_itself(client: httpx.Client, indexed_home: Indexed) -> None:
    file = indexed_home.folder / "photo-001.jpg"
    response = client.post("/v1/search/image", files={"file": file.read_bytes()}, data={"k": "1"}).json()
    (hit,) = response["results"]
    assert hit["uri"] == str(file)
    assert hit["score"] > 0.99
    assert hit["metadata"] == {"n": 1, "tags": ["odd"]}
    assert client.get(hit["image"]).content == file.read_bytes()
    thumbnail = Image.open(io.BytesIO(client.get(hit["thumbnail"]).content))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (256, 192))


@pytest.mark.parametrize("name", ["h Käse & Brötchen [1] #1?.jpg", "h-rotated.jpg", "h-animated.gif", "h-16bit.png"])
def test_odd_but_usable_images_are_searchable_and_shown(client: httpx.Client, indexed_home: Indexed, name: str) -> None:
    file = indexed_home.folder / name
    response = client.post("/v1/search/image", files={"file": file.read_bytes()}, data={"k": "1"}).json()
    (hit,) = response["results"]
    assert hit["uri"] == str(file)
    assert client.get(hit["image"]).content == file.read_bytes()
    thumbnail = Image.open(io.BytesIO(client.get(hit["thumbnail"]).content))
    assert thumbnail.size[0] < thumbnail.size[1] or name != "h-rotated.jpg"


def test_metadata_filters(client: httpx.Client) -> None:
    def names_matching(filter_: dict[str, object]) -> list[str]:
        response = client.post("/v1/search", json={"text": "a photo", "filter": filter_}).json()
        return [hit["uri"].rsplit("/", 1)[-1] for hit in response["results"]]

    assert names_matching({"n": {"$gte": 2}}) == ["photo-002.jpg"]
    assert names_matching({"tags": {"$contains": "odd"}}) == ["photo-001.jpg"]


def test_the_same_command_again_changes_nothing(indexed_home: Indexed) -> None:
    times = {file: file.stat().st_mtime_ns for file in (indexed_home.home / "storage").rglob("*.*")}
    completed = controller(
        "run-pipeline",
        indexed_home.folder,
        "--local",
        "--home",
        indexed_home.home,
        "--model",
        DEMO_MODEL,
        "--shard-size",
        "100",
    )
    assert completed.returncode == 0
    assert "is done already" in completed.stdout
    assert {file: file.stat().st_mtime_ns for file in (indexed_home.home / "storage").rglob("*.*")} == times


def test_the_same_run_with_other_options_is_refused(indexed_home: Indexed) -> None:
    (run,) = json.loads(controller("runs", "--home", indexed_home.home, "-o", "json").stdout)
    arguments = ("--local", "--home", indexed_home.home, "--model", DEMO_MODEL, "--run", run["run"])
    completed = controller("run-pipeline", indexed_home.folder, *arguments, "--shard-size", "7")
    assert completed.returncode == 3
    assert f"run {run['run']} exists with other options" in completed.stderr


def test_progress_in_a_pipe_is_a_line_per_change(indexed_home: Indexed) -> None:
    lines = indexed_home.errors.splitlines()
    assert len(lines) == len(set(lines))
    assert "ingest complete" in lines[-1]
    assert any("embed complete, 2/2 shards" in line for line in lines)


def test_every_listing_knows_the_run(indexed_home: Indexed) -> None:
    (run,) = json.loads(controller("runs", "--home", indexed_home.home, "-o", "json").stdout)
    assert (run["index"], run["state"]) == ("photos", "done")
    (index,) = json.loads(controller("indexes", "--home", indexed_home.home, "-o", "json").stdout)
    assert index["run"] == run["run"]
    status = json.loads(controller("status", run["run"], "--home", indexed_home.home, "-o", "json").stdout)
    assert [stage["state"] for stage in status["stages"]] == ["complete"] * 3
    assert run["run"] in controller("status", "--home", indexed_home.home).stdout
    log = controller("logs", run["run"], "1", "--home", indexed_home.home).stdout
    assert json.loads(log.splitlines()[-1])["shard"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/images/..%2F..%2F..%2Fetc%2Fhostname",
        "/v1/images/%2Fetc%2Fhostname",
        "/v1/images/..%2F..%2Fetc%2Fhostname/thumbnail",
        "/%2e%2e/%2e%2e/etc/hostname",
        "/page/main.js/..%2F..%2Fapp.py",
    ],
)
def test_no_path_leads_out_of_the_index(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_the_command_line_searches_by_text_and_by_file(client: httpx.Client, indexed_home: Indexed) -> None:
    file = indexed_home.folder / "h Käse & Brötchen [1] #1?.jpg"
    output = controller("search", file, "-k", "1", "--url", str(client.base_url)).stdout
    assert str(file) in output
    by_text = json.loads(controller("search", "a cat", "-k", "3", "-o", "json", "--url", str(client.base_url)).stdout)
    assert len(by_text["results"]) == 3
    completed = controller("search", "./no-such.jpg", "--url", str(client.base_url))
    assert completed.returncode == 2
    assert "./no-such.jpg" in completed.stderr
