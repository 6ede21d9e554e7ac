"""Indexes of folders of photos by the demo model, for tests of what comes after.

One process does all stages and loads the model once. `controller run-pipeline` starts a process for each stage."""

from __future__ import annotations

import threading
from pathlib import Path

from embedder.__main__ import plan
from embedder.metrics import EmbedMetrics
from embedder.plan import read_plan
from imgsearch.settings import RunSettings, Settings, StorageSettings, StoreSettings
from imgsearch.sources import open_source
from imgsearch.storage import Storage
from searcher.__main__ import ingest
from tests import forks
from tests.conftest import DEMO_MODEL


def fill(home: Path, *folders: Path) -> None:
    """Makes a user's home. Each index has the name of its folder, and its run the name with `-1`."""
    forks.finish(_fill, home, folders)


def _fill(home: Path, folders: tuple[Path, ...]) -> None:
    from embedder.shard import ShardEmbedder
    from imgsearch.encoder.openclip import load_encoder

    stopping = threading.Event()
    encoder = load_encoder(DEMO_MODEL, batch=None, threads=1)
    for folder in folders:
        settings = Settings(
            run=RunSettings(id=f"{folder.name}-1", index=folder.name, source=str(folder), model=DEMO_MODEL),
            storage=StorageSettings((home / "storage").as_uri()),
            store=StoreSettings(f"chroma+{(home / 'chroma').as_uri()}"),
        )
        storage = Storage(settings.storage.uri)
        plan(settings, stopping)
        embedder = ShardEmbedder(
            plan=read_plan(storage, settings.run.id),
            settings=settings.embed,
            storage=storage,
            source=open_source(settings.run.source),
            load_encoder=lambda: encoder,
            metrics=EmbedMetrics(),
            stopping=stopping,
        )
        embedder.embed(0)
        ingest(settings, stopping)
