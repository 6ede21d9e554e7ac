"""Counters and timers of the embedder, for Prometheus and for the shard's done.json."""

from __future__ import annotations

import re

from prometheus_client import Counter, Gauge

from imgsearch.metrics import StageMetrics

STAGES = ("read", "decode", "encode", "write", "texts")


class EmbedMetrics(StageMetrics):
    """Counters of one embedder process. Any thread may call."""

    def __init__(self) -> None:
        super().__init__("imgsearch_embed", STAGES)
        self.read = Counter("imgsearch_embed_read", "Images read", registry=self.registry)
        self.read_bytes = Counter("imgsearch_embed_read_bytes", "Bytes read", registry=self.registry)
        self.decoded = Counter("imgsearch_embed_decoded", "Images decoded", registry=self.registry)
        self.encoded = Counter("imgsearch_embed_encoded", "Images encoded", registry=self.registry)
        self.written = Counter("imgsearch_embed_written", "Images in finished parts", registry=self.registry)
        self._bad = Counter(
            "imgsearch_embed_bad",
            "Images that could not be used",
            ["stage", "reason"],
            registry=self.registry,
        )
        self._queue = Gauge(
            "imgsearch_embed_queue", "Results of a stage that wait for the next one", ["stage"], registry=self.registry
        )
        self.device_memory = Gauge(
            "imgsearch_embed_device_memory_bytes",
            "Highest use of the GPU's memory so far",
            registry=self.registry,
        )

    def bad(self, stage: str, reason: str) -> None:
        self._bad.labels(stage, kind(reason)).inc()

    def queue(self, stage: str, change: int) -> None:
        self._queue.labels(stage).inc(change)

    def total(self, counter: Counter) -> int:
        return int(next(iter(counter.collect())).samples[0].value)


def kind(reason: str) -> str:
    """A reason without its numbers, cut to 60 characters: a million bad files must not make a million time series."""
    return re.sub(r"\d[\d,.]*", "N", reason)[:60]
