"""A store that is lost, as the user of the command sees it: each command names it, and one command rebuilds it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import DEMO_MODEL
from tests.programs import controller


@pytest.mark.timeout(600)
def test_a_deleted_store_is_named_and_restored_without_embedding(tmp_path: Path) -> None:
    home, photos = tmp_path / "my home", tmp_path / "photos"
    photos.mkdir()
    for colour in ("red", "green"):
        Image.new("RGB", (40, 30), colour).save(photos / f"{colour}.png")
    target = ("--home", home)
    run = ("run-pipeline", photos, *target, "--model", DEMO_MODEL, "--run", "r1")
    assert controller(*run).returncode == 0
    embedded = {path: path.stat().st_mtime_ns for path in home.glob("storage/runs/r1/shards/*/*")}
    shutil.rmtree(home / "chroma")
    sentence = (
        "the vector store does not have photos any more, but the run folders do: rebuild it with "
        f"`controller restore --home '{home}'`, which embeds nothing"
    )
    for command, code in [(run, 3), ((*run[:-2], "--update"), 3), (("indexes", *target), 0)]:
        completed = controller(*command)
        assert (completed.returncode, sentence in completed.stderr) == (code, True), completed.stdout + completed.stderr
        assert "done already" not in completed.stdout
    completed = controller("restore", *target)
    assert completed.stdout == "index photos serves run r1 again (2 images)\n", completed.stderr
    assert "run r1 is done already" in controller(*run).stdout
    assert {path: path.stat().st_mtime_ns for path in embedded} == embedded, "something was embedded again"
