"""`python -m embedder model`: a real OpenCLIP architecture, with weights of chance, from a hub that runs here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
from safetensors.torch import save

from tests.hub import Hub, running_hub
from tests.programs import program_env

MODEL = "MobileCLIP2-S0/dfndr2b"
REPOSITORY = "timm/MobileCLIP2-S0-OpenCLIP"
FILE = "open_clip_model.safetensors"
GET = f"GET /{REPOSITORY}/resolve/"


@pytest.fixture(scope="module")
def weights() -> bytes:
    architecture, _, _ = MODEL.partition("/")
    network = open_clip.create_model(architecture, load_weights=False).half()
    return save(network.state_dict())


@pytest.fixture
def hub(weights: bytes) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.push(REPOSITORY, {FILE: weights}, repository_kind="models")
        yield hub


class Cache:
    """The volume on which the hub's cache lies, and processes that share it."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub = hub
        self._folder = folder

    def start(self, model: str = MODEL) -> subprocess.Popen[str]:
        settings = {"IMGSEARCH_RUN_MODEL": model, "HF_ENDPOINT": self._hub.url, "HF_HOME": str(self._folder)}
        return subprocess.Popen(
            [sys.executable, "-m", "embedder", "model"],
            env={**program_env(settings), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, model: str = MODEL) -> tuple[int, dict[str, object], str]:
        """Exit code, result and log of one call."""
        return self.wait(self.start(model))

    def wait(self, process: subprocess.Popen[str]) -> tuple[int, dict[str, object], str]:
        output, log = process.communicate()
        assert output, log
        return process.returncode, json.loads(output.splitlines()[-1]), log

    def downloads(self) -> list[str]:
        return [request for request in self._hub.requests if request.startswith(GET)]


@pytest.fixture
def cache(hub: Hub, tmp_path: Path) -> Cache:
    return Cache(hub, tmp_path)


def test_many_processes_download_once_and_later_ones_not_at_all_even_without_the_hub(hub: Hub, cache: Cache) -> None:
    results = [cache.wait(process) for process in [cache.start() for _ in range(2)]]
    assert [code for code, _, _ in results] == [0, 0], results
    assert all(result["model"] == MODEL for _, result, _ in results)
    assert len(cache.downloads()) == 1
    hub.models[REPOSITORY].access = "down"
    hub.requests.clear()
    code, result, log = cache.run()
    assert code == 0, log
    assert result["model"] == MODEL
    assert hub.requests, "it looked elsewhere"
    assert cache.downloads() == []


def test_a_hub_that_gives_nothing_now_is_tried_again(hub: Hub, cache: Cache) -> None:
    hub.models[REPOSITORY].access = "down"
    code, result, _ = cache.run()
    assert code == 3
    assert f"the weights of {MODEL} (" in str(result["error"])


def test_a_damaged_file_is_noticed_here_and_not_in_each_pod(hub: Hub, cache: Cache, weights: bytes) -> None:
    hub.push(REPOSITORY, {FILE: weights[: len(weights) // 2]}, repository_kind="models")
    code, result, _ = cache.run()
    assert code == 3
    assert f"the weights of {MODEL} (" in str(result["error"])


def test_a_folder_needs_no_download(hub: Hub, cache: Cache, demo_model: str) -> None:
    code, result, log = cache.run(demo_model)
    assert (code, result["model"]) == (0, demo_model), log
    assert hub.requests == []


def test_a_folder_without_weights_is_refused_before_any_shard(cache: Cache, demo_model: str, tmp_path: Path) -> None:
    shutil.copytree(
        demo_model.removeprefix("local-dir:"), tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors")
    )
    code, result, _ = cache.run(f"local-dir:{tmp_path / 'm'}")
    assert code == 4
    assert "it has no weights" in str(result["error"])
