"""The evaluation of the demo model on COCO128, and of an index whose store has wrong vectors."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.stores import Record, open_store
from tests.programs import controller

WRONG = 32


@pytest.fixture(scope="module")
def home(coco128_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Indexed, with a second index of the same run, a quarter of whose vectors are wrong."""
    folder = tmp_path_factory.mktemp("evaluation") / "home"
    shutil.copytree(coco128_home, folder)
    with closing(open_store(f"chroma+file://{folder}/chroma")) as store:
        pointer = store.pointers()["photos"]
        (hits,) = store.search(
            pointer.collection, np.ones((1, pointer.dim), np.float32), k=pointer.images, vectors=True
        )
        random = np.random.default_rng(0)
        damaged = [replace(hit, vector=random.normal(size=pointer.dim).astype(np.float32)) for hit in hits[:WRONG]]
        store.create("broken", dim=pointer.dim, vectors=100)
        store.add("broken", [Record(hit.id, hit.metadata, hit.vector) for hit in [*damaged, *hits[WRONG:]]])
        store.publish(replace(pointer, index="broken", collection="broken"))
    return folder


@pytest.fixture(scope="module")
def evaluation(home: Path) -> dict[str, Any]:
    """The evaluation of both indexes."""
    completed = controller("evaluate", "photos", "broken", "--home", home, "-o", "json", "--plot", home / "plot.svg")
    assert completed.returncode == 0, completed.stderr
    document: dict[str, Any] = json.loads(completed.stdout)
    return document


def figure(evaluation: dict[str, Any], of: str, name: str) -> dict[str, Any]:
    (matching,) = (row for row in evaluation["figures"] if (row["of"], row["figure"]) == (of, name))
    assert isinstance(matching, dict)
    return matching


def test_the_store_finds_what_exact_search_finds(evaluation: dict[str, Any]) -> None:
    for of, queries in [("images", 128), ("texts", 71)]:
        recall = figure(evaluation, of, "recall@10")["indexes"][0]
        assert recall["queries"] == queries
        assert recall["value"] >= 0.99


def test_labels_find_as_many_of_their_images_as_with_open_clip_alone(evaluation: dict[str, Any]) -> None:
    # tests/e2e/test_coco128.py counts them.
    recall = figure(evaluation, "labels", "R@10")["indexes"][0]
    assert (recall["queries"], recall["value"]) == (71, round(67 / 71, 4))
    assert 0.86 < recall["low"] < recall["value"] < recall["high"] < 0.99
    assert evaluation["indexes"][0]["labels"] == "labels"
    assert len(evaluation["indexes"][0]["by_label"]) == 71


def test_a_store_with_wrong_vectors_is_found_out_beside_a_good_one(evaluation: dict[str, Any]) -> None:
    for of in ("images", "texts"):
        difference = figure(evaluation, of, "recall@10")["difference"]
        assert difference["value"] < -0.15
        assert difference["high"] < -0.1
    assert figure(evaluation, "neighbours", "precision@10")["difference"]["high"] < 0


def test_the_plot_is_drawn(evaluation: dict[str, Any], home: Path) -> None:
    assert "<!-- images, broken -->" in (home / "plot.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("photos", "photos"), "index photos with itself"),
        (("photos", "--plot", "plot.pdf"), "--plot plot.pdf"),
        (("photos", "--queries", "0"), "argument --queries"),
    ],
)
def test_mistakes_are_reported_before_the_evaluation(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    completed = controller("evaluate", *arguments, "--home", tmp_path / "empty")
    assert completed.returncode == 2
    assert sentence in completed.stderr
    assert not (tmp_path / "empty").exists()
