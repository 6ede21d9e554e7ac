"""Mistakes of users: each gets one clear sentence, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.conftest import DEMO_MODEL
from tests.disks import small_disk
from tests.programs import controller


def check_mistake(*arguments: str | Path, code: int, sentence: str, env: Mapping[str, str] | None = None) -> None:
    completed = controller(*arguments, env=env)
    assert completed.returncode == code, completed.stderr
    output = completed.stdout + completed.stderr
    assert sentence in output
    assert "Traceback" not in output


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    return folder


def test_a_wrong_path(home: Path) -> None:
    check_mistake(
        "run-pipeline",
        "/no/such/folder",
        "--local",
        "--home",
        home,
        code=2,
        sentence="source /no/such/folder",
    )


def test_an_empty_folder(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_mistake(
        *("run-pipeline", tmp_path / "empty", "--local", "--home", home, "--model", DEMO_MODEL),
        code=1,
        sentence="holds no image files",
    )


def test_an_unknown_model(home: Path, folder: Path) -> None:
    """It is found before the source is listed: the metadata has a mistake, too."""
    (folder / "metadata.jsonl").write_text("{")
    check_mistake(
        *("run-pipeline", folder, "--local", "--home", home, "--model", "ViT-B-33/openai", "--run", "r1"),
        code=1,
        sentence="plan: OpenCLIP has no architecture 'ViT-B-33'; did you mean ViT-B-32",
    )
    assert not (home / "storage" / "runs").exists()


def test_a_model_with_other_weights(home: Path, folder: Path, tmp_path: Path) -> None:
    """It is found before the source is listed, and not tried again."""
    (folder / "metadata.jsonl").write_text("{")
    model = Path(shutil.copytree(DEMO_MODEL.removeprefix("local-dir:"), tmp_path / "model"))
    (file,) = model.glob("*.safetensors")
    weights = load_file(file)
    del weights["logit_scale"]
    save_file(weights, file)
    check_mistake(
        *("run-pipeline", folder, "--local", "--home", home, "--model", f"local-dir:{model}", "--run", "r1"),
        code=1,
        sentence=f"plan: the weights of local-dir:{model} are those of another architecture: Missing key(s)",
    )
    assert not (home / "storage" / "runs").exists()
    job = json.loads((home / "jobs" / "local-r1-plan" / "job.json").read_text())
    assert job["status"]["failedIndexes"] == "0"
    assert (home / "jobs" / "local-r1-plan" / "0.log").read_text().count("another architecture") == 1


def test_a_model_of_no_known_form(home: Path, folder: Path) -> None:
    check_mistake("run-pipeline", folder, "--local", "--home", home, "--model", "clip", code=2, sentence="model 'clip'")


def test_a_wrong_index_name(home: Path, folder: Path) -> None:
    check_mistake(
        "run-pipeline", folder, "--local", "--home", home, "--index", "My Photos", code=2, sentence="index name"
    )


def test_a_wrong_run_id(home: Path, folder: Path) -> None:
    check_mistake("run-pipeline", folder, "--local", "--home", home, "--run", "Run_1", code=2, sentence="run id")


@pytest.mark.parametrize("arguments", [("run-pipeline", "{folder}"), ("status",), ("serve",)])
def test_without_local_and_without_a_cluster(tmp_path: Path, folder: Path, arguments: tuple[str, ...]) -> None:
    check_mistake(
        *(argument.format(folder=folder) for argument in arguments),
        env={"KUBECONFIG": str(tmp_path / "none")},
        code=2,
        sentence="--local",
    )


def test_leaving_to_a_cluster_what_is_local(home: Path, folder: Path) -> None:
    check_mistake("run-pipeline", folder, "--home", home, "--detach", code=2, sentence="remove --home")


def test_a_setting_that_does_not_exist(home: Path, folder: Path) -> None:
    check_mistake(
        *("run-pipeline", folder, "--home", home, "--set", "embed.batch=64"),
        code=2,
        sentence="unknown setting embed.batch;",
    )


def test_none_of_the_images_can_be_used(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "page.jpg").write_text("<html>")
    check_mistake(
        *("run-pipeline", folder, "--local", "--home", home, "--model", DEMO_MODEL),
        code=1,
        sentence="none of the 1 images of run",
    )


def test_a_port_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        check_mistake(
            "serve", "--local", "--home", home, "--port", str(port), code=2, sentence=f"port {port} is in use"
        )


def test_a_search_without_a_server() -> None:
    check_mistake("search", "a cat", "--url", "http://127.0.0.1:9", code=3, sentence="controller serve --local")


@pytest.mark.parametrize(
    "arguments", [("status",), ("status", "no-such"), ("report",), ("logs", "no-such", "0"), ("cleanup", "x", "--data")]
)
def test_a_run_that_does_not_exist(home: Path, arguments: tuple[str, ...]) -> None:
    check_mistake(*arguments, "--home", home, code=2, sentence="run")


def test_a_rollback_of_an_index_that_does_not_exist(home: Path) -> None:
    check_mistake("rollback", "photos", "--home", home, code=2, sentence="index 'photos' does not exist")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", megabytes=2) as folder:
        yield folder


def test_no_space_left(disk: Path, folder: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(1_900_000))
    arguments = ("run-pipeline", folder, "--local", "--home", disk / "home", "--model", DEMO_MODEL)
    for number in range(60):
        noise = Image.frombytes("RGB", (256, 256), os.urandom(3 * 256 * 256))
        noise.save(folder / f"{number}.jpg")
    completed = controller(*arguments)
    assert completed.returncode in (1, 3)
    output = completed.stdout + completed.stderr
    assert "no space left" in output.lower()
    assert "Traceback" not in output
