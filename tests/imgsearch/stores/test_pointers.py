"""The pointers in a Chroma, which are JSON documents: one that is damaged is refused by its index and field."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import chromadb
import pytest

from imgsearch.runs.documents import RecallFigure
from imgsearch.stores import DamagedStore, Pointer
from imgsearch.stores.chroma import PAGE, ChromaStore

OLDER = Pointer("photos", "r1", "photos-r1", "m", "f", 8, 20, "/photos", "2026-01-01T00:00:00+00:00")
RECALL: list[RecallFigure] = [{"queries": "texts", "k": 10, "mean": 0.9876, "worst": 0.9}]
POINTER = replace(OLDER, run="r2", collection="photos-r2", previous=OLDER, recall=RECALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chroma")
    store = ChromaStore(f"chroma+file://{folder}")
    store.publish(POINTER)
    assert store.pointers() == {"photos": POINTER}
    store.close()
    return folder


def edited(**fields: Any) -> dict[str, str]:
    return {"pointer": json.dumps({**asdict(POINTER), **fields})}


def test_a_pointer_of_an_earlier_version_has_no_recall(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "chroma")
    document = asdict(OLDER)
    del document["recall"]
    client = chromadb.PersistentClient(tmp_path / "chroma")
    metadata = {"pointer": json.dumps(document)}
    client.get_collection("pointer.photos", embedding_function=None).modify(metadata=metadata)
    client.close()
    store = ChromaStore(f"chroma+file://{tmp_path}/chroma")
    assert store.pointers() == {"photos": OLDER}
    store.close()


def test_the_pointers_of_all_indexes_are_read(tmp_path: Path) -> None:
    """More than fit into one response of Chroma, and exactly as many."""
    store = ChromaStore(f"chroma+file://{tmp_path}")
    published: dict[str, Pointer] = {}
    for number in range(PAGE + 1):
        pointer = replace(OLDER, index=f"index-{number}", images=number)
        store.publish(pointer)
        published[pointer.index] = pointer
        if number >= PAGE - 2:
            assert store.pointers() == published
    store.close()


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"pointer": json.dumps(asdict(POINTER))[:50]}, "invalid JSON"),
        ({"pointer": "[]"}, "an object"),
        ({"other": 1}, "invalid JSON"),
        ({"pointer": json.dumps({"index": "photos"})}, "field run: field required"),
        (edited(dim="8"), "field dim: input should be a valid integer"),
        (edited(previous={"run": "r1"}), "field previous.index: field required"),
        (edited(recall=[{"queries": "texts", "k": 10}]), "field recall.0.mean: field required"),
    ],
)
def test_a_damaged_pointer_is_named_with_its_field_and_the_solution(
    folder: Path, metadata: dict[str, Any], problem: str
) -> None:
    client = chromadb.PersistentClient(folder)
    client.get_collection("pointer.photos", embedding_function=None).modify(metadata=metadata)
    client.close()
    store = ChromaStore(f"chroma+file://{folder}")
    with pytest.raises(DamagedStore) as caught:
        store.pointers()
    store.close()
    message = str(caught.value)
    assert message.startswith(f"the vector store chroma+file://{folder} is damaged (pointer of index photos: ")
    assert problem in message
    assert "rebuild it with `controller restore`" in message
