"""The graph of a new collection follows from the number of its vectors."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import chromadb
import pytest

from imgsearch.stores import chroma_graphs
from imgsearch.stores.chroma import ChromaStore


def graph_of(folder: Path, collection: str) -> dict[str, Any]:
    client = chromadb.PersistentClient(folder)
    graph: dict[str, Any] = client.get_collection(collection, embedding_function=None).configuration_json["hnsw"]
    client.close()
    return graph


def test_a_larger_collection_has_a_graph_with_more_links_and_an_existing_one_keeps_its_own(tmp_path: Path) -> None:
    with closing(ChromaStore(f"chroma+file://{tmp_path}")) as store:
        store.create("small", dim=4, vectors=1_000)
        store.create("large", dim=4, vectors=1_000_000)
        store.create("small", dim=4, vectors=1_000_000)
    small, large = graph_of(tmp_path, "small"), graph_of(tmp_path, "large")
    assert small["space"] == large["space"] == "cosine"
    assert (small["max_neighbors"], small["ef_construction"]) == (16, 100)
    assert large["max_neighbors"] > 16
    assert {name: large[name] for name in ("max_neighbors", "ef_construction")} == chroma_graphs.parameters(1_000_000)


@pytest.mark.parametrize("vectors", [0, 1, 49_999, 50_000, 50_001, 999_999, 10**9])
def test_more_vectors_never_get_fewer_links(vectors: int) -> None:
    fewer, more = chroma_graphs.parameters(vectors), chroma_graphs.parameters(vectors + 1)
    assert all(fewer[name] <= more[name] for name in ("max_neighbors", "ef_construction"))
