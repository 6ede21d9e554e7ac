"""The metrics of a running ingest: for Prometheus, and for the run's report.json."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from imgsearch.metrics import StageMetrics

STAGES = ("read", "store", "table", "verify", "recall", "publish", "facets", "map")


class IngestMetrics(StageMetrics):
    """The metrics of one ingest process. Thread-safe."""

    def __init__(self) -> None:
        super().__init__("imgsearch_ingest", STAGES)
        self.planned = Gauge(
            "imgsearch_ingest_planned", "Vectors that the collection will contain.", registry=self.registry
        )
        self.parts = Counter("imgsearch_ingest_parts", "Parts read.", registry=self.registry)
        self.added = Counter("imgsearch_ingest_added", "Vectors added to the store.", registry=self.registry)
        self.present = Counter(
            "imgsearch_ingest_present", "Vectors that an earlier ingest added.", registry=self.registry
        )
        self._batch_vectors = Gauge(
            "imgsearch_ingest_batch_vectors", "Vectors in the last call of the store.", registry=self.registry
        )
        self._batch_seconds = Gauge(
            "imgsearch_ingest_batch_seconds", "Seconds of the last call of the store.", registry=self.registry
        )

    def batch(self, vectors: int, seconds: float) -> None:
        """Records one call of the store."""
        self.added.inc(vectors)
        self._batch_vectors.set(vectors)
        self._batch_seconds.set(seconds)
