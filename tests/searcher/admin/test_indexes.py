"""The indexes as the controller gets them: `python -m searcher indexes`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imgsearch import stage
from imgsearch.runs.documents import RecallFigure
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, VectorStore, open_store
from searcher.admin.indexes import list_indexes
from tests.searcher.admin.test_reports import REPORT

SERVED = [f"photos-{number:02d}" for number in range(40)]
RECALL: list[RecallFigure] = [
    {"queries": "images", "k": 10, "mean": 0.9987, "worst": 0.98},
    {"queries": "images", "k": 100, "mean": 0.9912, "worst": 0.95},
    {"queries": "changed images", "k": 10, "mean": 0.9876, "worst": 0.9},
    {"queries": "changed images", "k": 100, "mean": 0.9765, "worst": 0.9},
    {"queries": "texts", "k": 10, "mean": 0.9543, "worst": 0.7},
    {"queries": "texts", "k": 100, "mean": 0.9432, "worst": 0.7},
]
LOST = [f"sketches-{number:02d}" for number in range(25)]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Has the reports of the lost indexes."""
    storage = Storage((tmp_path / "storage").as_uri())
    for name in LOST:
        storage.put(RunFolder(f"r-{name}").report, dataclasses.replace(REPORT, run=f"r-{name}", index=name).to_json())
    return storage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    """Has the pointers of the others."""
    with closing(open_store(f"chroma+file://{tmp_path}/chroma")) as store:
        for name in SERVED:
            pointer = Pointer(name, f"r-{name}", name, "ViT-B-32/openai", "f", 2, 1, "/sources/photos", "2026-01-01")
            store.publish(dataclasses.replace(pointer, recall=RECALL))
        yield store


def test_as_many_indexes_as_fit_are_listed_by_name(store: VectorStore, storage: Storage) -> None:
    result = list_indexes(store, storage)
    names = [row["index"] for row in result["indexes"]]
    assert names == SERVED[: len(names)]
    assert len(names) > 10
    assert result["lost"] == LOST[:20]
    assert result["left_out"] == {"indexes": 40 - len(names), "lost": 5}
    assert stage.size(result) <= stage.RESULT_LIMIT


def test_one_index_is_found_wherever_it_is_in_the_list(store: VectorStore, storage: Storage) -> None:
    (row,) = list_indexes(store, storage, SERVED[-1])["indexes"]
    assert (row["index"], row["run"]) == (SERVED[-1], f"r-{SERVED[-1]}")
    assert row["recall"] == {
        "images": {"10": 0.9987, "100": 0.9912},
        "changed images": {"10": 0.9876, "100": 0.9765},
        "texts": {"10": 0.9543, "100": 0.9432},
    }
    none = {"indexes": 0, "lost": 0}
    assert list_indexes(store, storage, LOST[-1]) == {"indexes": [], "lost": [LOST[-1]], "left_out": none}
    assert list_indexes(store, storage, "another") == {"indexes": [], "lost": [], "left_out": none}
