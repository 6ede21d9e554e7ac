"""The demo model on COCO128: the same labels and images are found as by exact search."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.conftest import DEMO_MODEL
from tests.programs import controller, serving


@pytest.fixture(scope="module")
def client(coco128_home: Path) -> Iterator[httpx.Client]:
    with serving(coco128_home) as http_client:
        yield http_client


@pytest.fixture(scope="module")
def labels(coco128: Path) -> dict[str, list[str]]:
    lines = (coco128 / "metadata.jsonl").read_text().splitlines()
    return {row["file_name"]: row["labels"] for row in map(json.loads, lines)}


def as_a_viewer_shows(file: Path) -> Image.Image:
    """The photo in sRGB: a sixth of COCO128 has the profile of a camera or of Adobe."""
    with Image.open(file) as photo:
        profile = photo.info.get("icc_profile")
        if not profile or photo.mode != "RGB":
            return photo.convert("RGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(photo, source, ImageCms.createProfile("sRGB"))


@pytest.fixture(scope="module")
def exact_results(coco128: Path, labels: dict[str, list[str]]) -> dict[str, list[str]]:
    """For each label the first ten files by exact search, with open_clip alone."""
    model, _, preprocess = open_clip.create_model_and_transforms(DEMO_MODEL)
    tokenizer = open_clip.get_tokenizer(DEMO_MODEL)
    model.eval()
    files = sorted(labels)
    known_labels = sorted({label for image in labels.values() for label in image})
    with torch.inference_mode():
        pixels = torch.stack([preprocess(as_a_viewer_shows(coco128 / file)) for file in files])
        images = model.encode_image(pixels, normalize=True).numpy()
        texts = model.encode_text(
            tokenizer([f"a photo of a {label}" for label in known_labels]), normalize=True
        ).numpy()
    ranks: NDArray[Any] = np.argsort(-(texts @ images.T), axis=1)[:, :10]
    return {label: [files[rank] for rank in row] for label, row in zip(known_labels, ranks, strict=True)}


def test_labels_find_their_images_as_exact_search_does(
    client: httpx.Client, labels: dict[str, list[str]], exact_results: dict[str, list[str]]
) -> None:
    assert len(exact_results) == 71
    results = {}
    for label in exact_results:
        response = client.post("/v1/search", json={"text": f"a photo of a {label}", "k": 10}).raise_for_status().json()
        results[label] = [hit["uri"].rsplit("/", 1)[-1] for hit in response["results"]]

    def hits(rows: dict[str, list[str]]) -> int:
        return sum(any(label in labels[file] for file in files) for label, files in rows.items())

    recall = np.mean([len(set(results[label]) & set(exact_results[label])) / 10 for label in exact_results])
    assert recall >= 0.99
    assert hits(results) == hits(exact_results) == 67


def test_the_recall_of_images_and_texts_is_shown_in_each_place(coco128_home: Path, client: httpx.Client) -> None:
    """Chroma finds everything in an index of 128 images."""
    kinds = ("images", "changed images", "texts")
    figures = [{"queries": kind, "k": k, "mean": 1.0, "worst": 1.0} for kind in kinds for k in (10, 100)]
    (index,) = client.get("/v1/indexes").json()["indexes"]
    assert index["recall"] == figures
    metrics = client.get("/metrics").text
    for kind in kinds:
        assert f'imgsearch_index_recall{{index="photos",k="10",queries="{kind}"}} 1.0' in metrics
    (row,) = json.loads(controller("indexes", "-o", "json", "--home", coco128_home).stdout)
    assert row["recall"] == {kind: {"10": 1.0, "100": 1.0} for kind in kinds}
    heading, line = controller("indexes", "--home", coco128_home).stdout.splitlines()
    assert (heading.split()[-1], line.split()[-1]) == ("recall@10", "1.0000")
    report = controller("report", "--home", coco128_home).stdout
    assert "@10 of texts 1.0000 (worst twentieth 1.0000); @100 of texts 1.0000 (worst twentieth 1.0000)" in report


def test_the_queries_are_labels_of_the_photos(coco128_home: Path, labels: dict[str, list[str]]) -> None:
    (file,) = (coco128_home / "storage").glob("runs/*/shards/00000/texts.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [row["origin"] for row in rows] == ["label"] * 4
    known_labels = {label for image in labels.values() for label in image}
    assert {row["text"].removeprefix("a photo of a ") for row in rows} <= known_labels


def test_labels_are_metadata_to_filter_by(client: httpx.Client, labels: dict[str, list[str]]) -> None:
    filter_ = {"labels": {"$contains": "giraffe"}}
    response = client.post("/v1/search", json={"text": "an animal", "k": 50, "filter": filter_}).json()
    names = {hit["uri"].rsplit("/", 1)[-1] for hit in response["results"]}
    assert names == {file for file, image in labels.items() if "giraffe" in image}
