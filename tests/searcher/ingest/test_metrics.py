"""Metrics of an ingest, in its process and over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence

import httpx
import pytest

from imgsearch.metrics import exposed
from imgsearch.settings import IndexSettings, MetricsSettings, RunSettings, Settings, StorageSettings, StoreSettings
from imgsearch.stage import Interrupted
from imgsearch.stores import Record
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics
from tests.programs import free_port, program_env
from tests.searcher.ingest.bench import A_KEYS, CountingStore, IngestBench


def value(metrics: IngestMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"imgsearch_ingest_{name}")


def test_metrics_count_what_happened_and_their_last_figures_are_reported(bench: IngestBench) -> None:
    bench.write_run("r1", A_KEYS, bad=["x1", "x2"], part_images=4)
    bench.store.stop = (3, bench.stopping)
    with pytest.raises(Interrupted):
        bench.ingest("r1")
    added_count = len(bench.store.added_ids)
    assert value(bench.metrics, "added_total") == added_count
    bench.stopping.clear()
    bench.store.stop = None
    report = bench.ingest("r1")
    assert value(bench.metrics, "planned") == 20
    assert value(bench.metrics, "parts_total") == 6
    assert value(bench.metrics, "added_total") == 20 - added_count
    assert value(bench.metrics, "present_total") == added_count
    assert value(bench.metrics, "batch_vectors") == 2
    assert value(bench.metrics, "batch_seconds") is not None
    assert report.ingest_stages == bench.metrics.stage_seconds()
    assert list(report.ingest_stages) == ["read", "store", "table", "verify", "recall", "publish", "facets", "map"]
    for stage in report.ingest_stages:
        assert bench.metrics.registry.get_sample_value("imgsearch_ingest_stage_seconds_total", {"stage": stage})
    assert report.embed_bytes == 200
    assert report.embed_stages == {"encode": 2.0}


def test_metrics_are_read_over_http_while_it_runs(bench: IngestBench) -> None:
    texts = []

    class Scraped(CountingStore):
        def add(self, collection: str, records: Sequence[Record]) -> None:
            super().add(collection, records)
            texts.append(httpx.get(f"http://127.0.0.1:{port}/metrics").text)

    bench.store = Scraped()
    bench.write_run("r1", A_KEYS, shards=1, part_images=10)
    port = free_port()
    work = Ingest(
        "r1",
        storage=bench.storage,
        store=bench.store,
        settings=IndexSettings(),
        metrics=bench.metrics,
        stopping=bench.stopping,
    )
    with exposed(bench.metrics.registry, port):
        work.run()
    assert len(texts) == 2
    assert "imgsearch_ingest_planned 20.0" in texts[0]
    assert "imgsearch_ingest_added_total 10.0" in texts[1]


def test_a_metrics_port_in_use_is_a_usage_error(bench: IngestBench) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        settings = Settings(
            run=RunSettings(id="r1"),
            storage=StorageSettings(bench.storage.uri),
            store=StoreSettings(f"chroma+{bench.root.as_uri()}/chroma"),
            metrics=MetricsSettings(listener.getsockname()[1]),
        )
        completed = subprocess.run(
            [sys.executable, "-m", "searcher", "ingest"], env=program_env(settings.to_env()), capture_output=True
        )
    assert completed.returncode == 2
    assert f"cannot serve metrics on port {settings.metrics.port}: it is in use" in completed.stdout.decode()
