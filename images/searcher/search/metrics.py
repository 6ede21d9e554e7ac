"""The metrics that Prometheus reads from /metrics."""

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
    """What this process serves: every process serves the same, so there is nothing to add up. Its labels come and go,
    which the files of prometheus_client's multiprocess mode could not tell."""

    pointers: Sequence[Pointer] = ()
    problems: Sequence[str] = ()
    store_up = False

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "imgsearch_index_info", "1 for every run that is served.", labels=["index", "run", "model"]
        )
        images = GaugeMetricFamily("imgsearch_index_images", "Images in an index.", labels=["index"])
        problem = GaugeMetricFamily(
            "imgsearch_index_problem", "1 for an index whose newest run is not served.", labels=["index"]
        )
        for pointer in self.pointers:
            info.add_metric([pointer.index, pointer.run, pointer.model], 1)
            images.add_metric([pointer.index], pointer.images)
        for index in self.problems:
            problem.add_metric([index], 1)
        up = "1 where the vector store answers, 0 where not."
        yield from (info, images, problem, GaugeMetricFamily("imgsearch_store_up", up, value=self.store_up))


class Metrics:
    """The metrics of one app, in a registry of their own, so that two apps in one process do not mix.

    With `counts`, they are those of all processes that have this folder: PROMETHEUS_MULTIPROC_DIR names it, and has
    done so since before prometheus_client was imported."""

    def __init__(self, counts: Path | None = None) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "imgsearch_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.key_requests = Counter(
            "imgsearch_key_requests", "Requests that brought an API key, by its name.", ["key"], registry=registry
        )
        self.request_seconds = Histogram(
            "imgsearch_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.encode_seconds = Histogram(
            "imgsearch_encode_seconds",
            "One call of the model.",
            ["kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self.store_seconds = Histogram(
            "imgsearch_store_seconds", "One call of the vector store.", buckets=SECONDS, registry=registry
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
            "Queries that wait for the model or are in it.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.cache_hits = Counter("imgsearch_cache_hits", "Text queries whose vector was known.", registry=registry)
        self.cache_misses = Counter("imgsearch_cache_misses", "Text queries that went to the model.", registry=registry)
        # Of all processes, whichever was asked for /readyz last.
        self._ready = Gauge(
            "imgsearch_ready",
            "1 where the last look at /readyz found it ready, 0 where not.",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._served = _Served()
        if counts:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry, path=str(counts))  # type: ignore[no-untyped-call]
        self._registry.register(self._served)

    def serving(self, pointers: Iterable[Pointer]) -> None:
        """These and no others are served now."""
        self._served.pointers = list(pointers)

    def problems(self, indexes: Iterable[str], *, store: bool) -> None:
        """The newest runs of these and no other indexes are not served; `store` is whether the vector store answers."""
        self._served.problems = list(indexes)
        self._served.store_up = store

    def ready(self, ready: bool) -> None:
        """What /readyz has just said."""
        self._ready.set(ready)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
