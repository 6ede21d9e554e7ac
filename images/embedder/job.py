"""The embed job of one shard: first it repairs its share of the damaged shards, then it embeds the shard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache

from embedder.metrics import EmbedMetrics
from embedder.plan import read_plan
from embedder.repair import damaged_shards, reopen
from embedder.shard import ShardEmbedder
from imgsearch.encoder import Encoder
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import Settings
from imgsearch.sources import Source
from imgsearch.storage import Storage


class EmbedJob:
    """Embeds shards of one run."""

    def __init__(
        self,
        settings: Settings,
        *,
        storage: Storage,
        source: Source,
        load_encoder: Callable[[], Encoder],
        stopping: threading.Event,
        metrics: EmbedMetrics,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._source = source
        self._load_encoder = lru_cache(1)(load_encoder)
        self._stopping = stopping
        self._metrics = metrics

    def run(self, shard: int) -> ShardDone:
        """Raises the errors of ShardEmbedder.embed."""
        plan = read_plan(self._storage, self._settings.run.id)
        for damaged in list(damaged_shards(self._storage, plan, shard)):
            reopen(self._storage, damaged)
            if damaged.run != plan.run:
                self._embedder(read_plan(self._storage, damaged.run), EmbedMetrics()).embed(damaged.shard)
            self._storage.remove(RunFolder(plan.run).damaged(*damaged))
        return self._embedder(plan, self._metrics).embed(shard)

    def _embedder(self, plan: Plan, metrics: EmbedMetrics) -> ShardEmbedder:
        return ShardEmbedder(
            plan=plan,
            settings=self._settings.embed,
            storage=self._storage,
            source=self._source,
            load_encoder=self._load_encoder,
            metrics=metrics,
            stopping=self._stopping,
        )
