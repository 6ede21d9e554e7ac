"""The values for each size (charts/imgsearch/sizes): what the images take fits, by the measured figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kubernetes.utils.quantity import parse_quantity

from bench.results import FOLDER
from controller.jobs.results import PlanResult
from controller.run.store_memory import needed, shortage
from imgsearch.settings import Settings
from tests.chart.helm import CHART, Helm, Objects

DIM = 512
SIZES = {"laptop": 10_000, "100k": 100_000, "1m": 1_000_000, "5m": 5_000_000}
RUN_FOLDER_BYTES = 12_500
"""Of an image: 9 000 for the thumbnail, 2 200 for vector, metadata and table (docs/scale.md), and some for the rest."""
FILES = sorted((CHART / "sizes").glob("*.yaml"))


def chroma_bytes() -> float:
    """On the disk, of an image with a vector of 512 dimensions: `python -m bench million`."""
    figures = json.loads((FOLDER / "million.json").read_text())["tables"]["Ingest"]
    (megabytes,) = [figure["value"] for figure in figures if figure["column"] == "files of Chroma, MB"]
    return float(megabytes)


def chroma_memory(chart: Objects, kind: str) -> float:
    """Bytes. `kind`: requests or limits."""
    (container,) = chart.named("StatefulSet", "chroma")["spec"]["template"]["spec"]["containers"]
    return float(parse_quantity(container["resources"][kind]["memory"]))


def claim(chart: Objects, name: str) -> float:
    return float(parse_quantity(chart.named("PersistentVolumeClaim", name)["spec"]["resources"]["requests"]["storage"]))


def test_there_is_a_file_for_each_size() -> None:
    assert {file.stem for file in FILES} == SIZES.keys()


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def chart(helm: Helm, file: Path) -> Objects:
    return helm.template(file)


def test_it_passes_the_strict_lint(helm: Helm, file: Path) -> None:
    completed = helm.lint(file)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_chroma_holds_the_run_that_is_served_and_the_one_that_is_filled(chart: Objects, file: Path) -> None:
    images = SIZES[file.stem]
    assert chroma_memory(chart, "requests") >= 2 * needed(images, DIM)
    settings = Settings.from_env(chart.named("ConfigMap", "pipeline")["data"])
    assert settings.jobs.store_memory == chroma_memory(chart, "limits")
    assert shortage(PlanResult(shards=1, images=images, dim=DIM), settings.jobs.store_memory) is None


def test_the_claims_hold_two_runs_and_a_third_that_is_filled(chart: Objects, file: Path) -> None:
    images = SIZES[file.stem]
    assert claim(chart, "chroma") >= 3 * images * chroma_bytes()
    assert claim(chart, "storage") >= 3 * images * RUN_FOLDER_BYTES


def test_a_laptop_has_room_for_what_runs_at_once(helm: Helm) -> None:
    """Two cores and 6 GiB, of which an index embeds, or an ingest loads, beside Chroma and the search server."""
    chart = helm.template(CHART / "sizes" / "laptop.yaml")

    def sum_of(resource: str, *components: str) -> float:
        containers = [chart.pod(component).spec["containers"][0] for component in components]
        return float(sum(parse_quantity(container["resources"]["requests"][resource]) for container in containers))

    for stage in ("plan", "embed", "ingest"):
        assert sum_of("cpu", "chroma", "searcher", stage, "controller") <= 2
        assert sum_of("memory", "chroma", "searcher", stage, "controller") <= 6 * 2**30
