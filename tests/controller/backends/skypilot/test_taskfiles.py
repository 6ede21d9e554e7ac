"""Task files: the settings in them, and files that are missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.backends.skypilot.taskfiles import TASKS, read_settings
from controller.jobs.state import Stage
from imgsearch.errors import UsageError
from tests.controller.backends.skypilot.embed_jobs import Connect

PLACE = {"IMGSEARCH_STORAGE_URI": "s3://team/photos", "IMGSEARCH_STORE_URL": "chroma+http://chroma:8000"}


def test_settings_are_those_of_the_files_and_of_the_environment() -> None:
    settings = read_settings(TASKS, {**PLACE, "HOME": "/home/me"})
    assert settings.storage.uri == "s3://team/photos"
    assert settings.run.shard_images == 100_000, "plan.yaml says so"
    assert read_settings(TASKS, {**PLACE, "IMGSEARCH_RUN_SHARD_IMAGES": "7"}).run.shard_images == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMGSEARCH_STORAGE_URI", ""),
        ("IMGSEARCH_STORE_URL", "chroma+file:///x"),
        ("IMGSEARCH_STORAGE_URI", "file:///x"),
    ],
)
def test_what_the_machines_cannot_reach_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        read_settings(TASKS, {**PLACE, name: value})


def test_a_folder_without_tasks_is_named(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"embed\.yaml .*--sky-tasks"):
        connect(files=tmp_path).template(Stage.EMBED)
    (tmp_path / "embed.yaml").write_text("name: [")
    with pytest.raises(UsageError, match=r"embed\.yaml"):
        connect(files=tmp_path).template(Stage.EMBED)
    (tmp_path / "embed.yaml").write_text("name: x\n")
    with pytest.raises(UsageError, match=r"embed\.yaml.*`resources` and `run`"):
        connect(files=tmp_path).template(Stage.EMBED)
