"""The searcher's metrics for Prometheus, served at /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from imgsearch.stores import Pointer

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Served(Collector):
    """The indexes that this process serves. All processes serve the same ones, so their values are not added up.

    Not gauges: their labels come and go, and the files of prometheus_client's multiprocess mode keep old labels."""

    pointers: Sequence[Pointer] = ()
    problems: Sequence[str] = ()
    store_up = False

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "imgsearch_index_info", "1 for each run that is served.", labels=["index", "run", "model"]
        )
        images = GaugeMetricFamily("imgsearch_index_images", "Images in an index.", labels=["index"])
        problem = GaugeMetricFamily(
            "imgsearch_index_problem", "1 for an index whose newest run is not served.", labels=["index"]
        )
        recall = GaugeMetricFamily(
            "imgsearch_index_recall",
            "Share of the k nearest images that a search finds, as measured before the run was published.",
            labels=["index", "queries", "k"],
        )
        for pointer in self.pointers:
            info.add_metric([pointer.index, pointer.run, pointer.model], 1)
            images.add_metric([pointer.index], pointer.images)
            for figure in pointer.recall:
                recall.add_metric([pointer.index, figure["queries"], str(figure["k"])], figure["mean"])
        for index in self.problems:
            problem.add_metric([index], 1)
        up = "1 if the vector store answers, else 0."
        yield from (info, images, recall, problem, GaugeMetricFamily("imgsearch_store_up", up, value=self.store_up))


class Metrics:
    """The metrics of one app, in a registry of its own, so that two apps in one process do not share values.

    With `metrics_folder`, they are the metrics of all processes that use this folder. PROMETHEUS_MULTIPROC_DIR must
    name it before prometheus_client is imported."""

    def __init__(self, metrics_folder: Path | None = None) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "imgsearch_requests",
            "Requests that ended. Status 499: the client hung up before the response.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.key_requests = Counter(
            "imgsearch_key_requests", "Requests with a valid API key, by the key's name.", ["key"], registry=registry
        )
        self.request_seconds = Histogram(
            "imgsearch_request_seconds",
            "Seconds from the first byte of a request to the last byte of its response.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.encode_seconds = Histogram(
            "imgsearch_encode_seconds",
            "Seconds of one call of the model.",
            ["kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self.store_seconds = Histogram(
            "imgsearch_store_seconds", "Seconds of one call of the vector store.", buckets=SECONDS, registry=registry
        )
        self.batch_texts = Histogram(
            "imgsearch_batch_texts",
            "Text queries in one call of the model.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.batch_images = Histogram(
            "imgsearch_batch_images",
            "Image queries in one call of the model.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.queue = Gauge(
            "imgsearch_encode_queue",
            "Queries that wait for the model, or are in it.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.connections = Gauge(
            "imgsearch_connections", "Open connections.", multiprocess_mode="livesum", registry=registry
        )
        self.connections_closed = Counter(
            "imgsearch_connections_closed",
            "Connections closed at the limit. Reason idle: for a new one; busy: a new one, since no other was idle.",
            ["reason"],
            registry=registry,
        )
        for reason in ("idle", "busy"):
            self.connections_closed.labels(reason)  # 0 until then, so that a rate has its first closure
        self.fetch_queue = Gauge(
            "imgsearch_fetch_queue",
            "Images of image_url that wait to be fetched, are being fetched, or are in use.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.cache_hits = Counter("imgsearch_cache_hits", "Text queries with a cached vector.", registry=registry)
        self.cache_misses = Counter(
            "imgsearch_cache_misses", "Text queries that the model had to encode.", registry=registry
        )
        self.checked_neighbours = Counter(
            "imgsearch_checked_neighbours",
            "The k nearest images of the searches that were answered exactly as well.",
            ["index", "k"],
            registry=registry,
        )
        self.found_neighbours = Counter(
            "imgsearch_found_neighbours",
            "Those of imgsearch_checked_neighbours that the search had found.",
            ["index", "k"],
            registry=registry,
        )
        # Of the process that answered /readyz last.
        self._ready = Gauge(
            "imgsearch_ready",
            "1 if the last response of /readyz was 200, else 0.",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._served = _Served()
        if metrics_folder:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry, path=str(metrics_folder))  # type: ignore[no-untyped-call]
        self._registry.register(self._served)

    def serving(self, pointers: Iterable[Pointer]) -> None:
        """Replaces the pointers that are served."""
        self._served.pointers = list(pointers)

    def problems(self, indexes: Iterable[str], *, store: bool) -> None:
        """Replaces the indexes whose newest run is not served. `store`: whether the vector store answers."""
        self._served.problems = list(indexes)
        self._served.store_up = store

    def ready(self, ready: bool) -> None:
        """Records the last response of /readyz."""
        self._ready.set(ready)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
