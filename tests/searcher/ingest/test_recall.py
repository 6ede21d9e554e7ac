"""The recall of a run is tuned before the run is published; one below its target is published with a warning."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import chromadb
import pytest

from imgsearch.runs.documents import Report
from imgsearch.stores import Pointer, VectorStore
from imgsearch.stores.chroma import ChromaStore
from tests.searcher.ingest.bench import A_KEYS, IngestBench

KEYS = [f"k{number}" for number in range(600)]


def open_chroma(bench: IngestBench) -> VectorStore:
    return ChromaStore(f"chroma+file://{bench.root}/chroma")


def ingest(bench: IngestBench, recall: float) -> tuple[Report, Pointer]:
    """Ingests the run into a Chroma; returns the report and the pointer."""
    report = bench.ingest("r1", store=open_chroma(bench), recall=recall)
    with closing(open_chroma(bench)) as store:
        return report, store.pointers()["photos"]


def lowest_recall(report: Report) -> float:
    return min(figure["mean"] for figure in report.recall)


def bad_graph(bench: IngestBench, links: int) -> None:
    """The run, and its collection with a graph of so few links that searches miss images."""
    bench.write_run("r1", KEYS, shards=1, part_images=len(KEYS))
    client = chromadb.PersistentClient(bench.root / "chroma")
    graph = {"space": "cosine", "max_neighbors": links, "ef_construction": 4, "ef_search": 10}
    client.create_collection("photos-r1", configuration={"hnsw": graph}, embedding_function=None)
    client.close()


def test_a_bad_graph_gets_more_candidates(bench: IngestBench, caplog: pytest.LogCaptureFixture) -> None:
    bad_graph(bench, links=3)
    first, pointer = ingest(bench, 0.1)
    assert first.candidates == pointer.candidates
    assert 0.1 <= lowest_recall(first) < 0.95
    assert first.recall_warning == ""
    assert "index.recall" not in caplog.text

    report, pointer = ingest(bench, 1.0)  # the published run, with another target
    assert report.candidates == pointer.candidates > first.candidates
    assert lowest_recall(report) > lowest_recall(first)


def test_where_candidates_do_not_help_there_is_a_warning(bench: IngestBench, caplog: pytest.LogCaptureFixture) -> None:
    bad_graph(bench, links=2)  # it is in pieces
    report, pointer = ingest(bench, 1.0)
    lowest = lowest_recall(report)
    assert lowest < 1
    assert f"{1 - lowest:.4f} below the target 1 (index.recall)" in report.recall_warning
    assert f"index photos, run r1: {report.recall_warning}" in caplog.text
    assert pointer.run == "r1"


def test_a_good_index_keeps_the_fewest_candidates(bench: IngestBench) -> None:
    bench.write_run("r1", KEYS, shards=1, part_images=len(KEYS))
    report, pointer = ingest(bench, 0.99)
    assert report.candidates == pointer.candidates == 128
    assert [figure["mean"] for figure in report.recall] == [1.0] * 4
    assert report.recall_warning == ""


def test_a_repeated_ingest_does_not_change_what_a_rollback_left(bench: IngestBench) -> None:
    for run in ("r1", "r2"):
        bench.write_run(run, A_KEYS)
        bench.ingest(run)
    current = bench.store.pointers()["photos"]
    assert current.previous is not None
    older = replace(current.previous, previous=replace(current, previous=None), candidates=7)
    bench.store.publish(older)
    bench.ingest("r2")
    assert bench.store.pointers()["photos"] == older
    bench.ingest("r1")
    assert bench.store.pointers()["photos"] == replace(older, candidates=128)
