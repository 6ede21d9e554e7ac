"""Records in a Chroma whose fields are damaged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import chromadb
import numpy as np
import pytest

from imgsearch.stores import DamagedStore, Record
from imgsearch.stores.chroma import ChromaStore


@pytest.mark.parametrize("text", ["{", "[1]", "5"])
def test_a_record_with_damaged_fields_is_no_mistake_of_the_caller(tmp_path: Path, text: str) -> None:
    with closing(ChromaStore(f"chroma+file://{tmp_path}")) as store:
        store.create("photos", dim=4, vectors=10)
        store.add("photos", [Record("a", {"n": 1}, np.array([1, 0, 0, 0], np.float32), {"key": "a.jpg"})])
    client = chromadb.PersistentClient(tmp_path)
    client.get_collection("photos", embedding_function=None).update(["a"], metadatas=[{"_": text}])
    client.close()
    with closing(ChromaStore(f"chroma+file://{tmp_path}")) as store:
        with pytest.raises(DamagedStore, match="the metadata of a record"):
            store.get("photos", ["a"])
        with pytest.raises(DamagedStore, match="the metadata of a record"):
            store.search("photos", np.array([[1, 0, 0, 0]], np.float32), k=1)
