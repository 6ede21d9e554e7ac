"""The graph of a new collection follows from the number of its vectors."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest

from imgsearch.stores import Record, chroma_graphs
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
    parameters = chroma_graphs.parameters(1_000_000)
    assert {name: large[name] for name in parameters} == parameters


@pytest.mark.parametrize(
    ("vectors", "expected"), [(0, 1_000), (200_000, 1_000), (1_000_000, 5_000), (5_000_000, 25_000)]
)
def test_a_large_collection_is_written_two_hundred_times_while_it_is_filled(vectors: int, expected: int) -> None:
    assert chroma_graphs.parameters(vectors)["sync_threshold"] == expected


def test_a_finished_collection_is_written_when_it_is_loaded_again(tmp_path: Path) -> None:
    """All but the last thousand of the vectors: else each start of Chroma would add them to the graph again."""
    vectors = np.random.default_rng(0).normal(size=(1_500, 8)).astype(np.float32)
    records = [Record(f"{row:04}", {"n": row}, vector / np.linalg.norm(vector)) for row, vector in enumerate(vectors)]
    with closing(ChromaStore(f"chroma+file://{tmp_path}")) as store:
        store.create("large", dim=8, vectors=1_000_000)
        store.add("large", records)
        assert len(store.nearest("large", vectors[:1], k=3)[0]) == 3
    assert graph_of(tmp_path, "large")["sync_threshold"] == 5_000
    assert not [*tmp_path.rglob("index_metadata.pickle")]
    with closing(ChromaStore(f"chroma+file://{tmp_path}")) as store:
        store.finish("large")
    after = graph_of(tmp_path, "large")
    assert after["sync_threshold"] == chroma_graphs.SYNC_THRESHOLD
    assert after["max_neighbors"] == chroma_graphs.parameters(1_000_000)["max_neighbors"]
    with closing(ChromaStore(f"chroma+file://{tmp_path}")) as store:
        (found,) = store.nearest("large", vectors[7:8], k=1)
        assert found[0].id == "0007"
    assert [*tmp_path.rglob("index_metadata.pickle")]


@pytest.mark.parametrize("vectors", [0, 1, 49_999, 50_000, 50_001, 999_999, 10**9])
def test_more_vectors_never_get_fewer_links(vectors: int) -> None:
    fewer, more = chroma_graphs.parameters(vectors), chroma_graphs.parameters(vectors + 1)
    assert all(fewer[name] <= more[name] for name in ("max_neighbors", "ef_construction"))
