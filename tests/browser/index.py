"""Indexes folders of photos with the demo model: `python -m tests.browser.index HOME FOLDER...`.

One process does all stages and loads the model once. `controller run-pipeline` starts a process for each stage."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from embedder.__main__ import plan
from embedder.metrics import EmbedMetrics
from embedder.plan import read_plan
from embedder.shard import ShardEmbedder
from imgsearch.encoder.openclip import load_encoder
from imgsearch.settings import RunSettings, Settings, StorageSettings, StoreSettings
from imgsearch.sources import open_source
from imgsearch.storage import Storage
from searcher.__main__ import ingest
from tests.conftest import DEMO_MODEL


def main(home: Path, folders: list[Path]) -> None:
    """Each index has the name of its folder."""
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


if __name__ == "__main__":
    home, *folders = map(Path, sys.argv[1:])
    main(home, folders)
