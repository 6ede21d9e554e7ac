"""The embedder's stages as programs: `python -m embedder model|plan|embed`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from imgsearch import machine, stage
from imgsearch.metrics import exposed
from imgsearch.settings import Settings
from imgsearch.sources import open_source
from imgsearch.storage import Storage

log = logging.getLogger(__name__)


def model(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Downloads the model into the hub's cache and loads it once, so that the processes of all shards neither download
    it at once nor fail one by one."""
    from imgsearch.encoder.openclip import download

    start = time.monotonic()
    download(settings.run.model)
    return {"model": settings.run.model, "seconds": round(time.monotonic() - start, 3)}


def plan(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Lists the source and writes the plan."""
    from embedder.plan import plan
    from imgsearch.encoder.model_config import dim

    planned = plan(settings, Storage(settings.storage.uri), open_source(settings.run.source))
    return {
        "shards": planned.shards,
        "images": planned.images,
        "kept": planned.kept,
        "removed": planned.removed,
        "dim": dim(settings.run.model),
    }


def embed(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
    """Embeds the shard that JOB_COMPLETION_INDEX names."""
    machine.tune_for_throughput()
    from embedder.job import EmbedJob
    from embedder.metrics import EmbedMetrics
    from imgsearch.encoder import Encoder

    def load() -> Encoder:
        from imgsearch.encoder.openclip import load_encoder  # takes seconds, and a finished shard needs no model

        return load_encoder(settings.run.model, batch=settings.embed.batch_images, threads=1)

    shard = stage.completion_index(os.environ)
    metrics = EmbedMetrics()
    job = EmbedJob(
        settings,
        storage=Storage(settings.storage.uri),
        source=open_source(settings.run.source),
        load_encoder=load,
        stopping=stopping,
        metrics=metrics,
    )
    with exposed(metrics.registry, settings.metrics.port):
        done = job.run(shard)
    return {
        "shard": done.shard,
        "images": done.images,
        "bad": done.bad,
        "seconds": done.seconds,
        "device": done.device,
    }


STAGES: dict[str, stage.Stage] = {"model": model, "plan": plan, "embed": embed}


if __name__ == "__main__":
    sys.exit(stage.main("embedder", STAGES, sys.argv[1:], os.environ))
