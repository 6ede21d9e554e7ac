"""Memory of the embedder, with few images and with many."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import models, photos
from bench.results import Figure
from imgsearch.settings import LogSettings, RunSettings, Settings, StorageSettings

TITLE = "Memory"
METHOD = """\
Maximum memory (`ru_maxrss`) of `python -m embedder embed`, in its own process, on one shard of photos of 500×375 with
the demo's model. The photos are 500 different ones under many names. A part has 2 000 images."""

DISTINCT = 500
FEW, MANY = 1_000, 20_000


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    few, many = (200, 600) if quick else (FEW, MANY)
    peaks = {images: _peak(cache, images) for images in (few, many)}
    figures = [Figure(f"{images:,} images", "MB", round(peak)) for images, peak in peaks.items()]
    growth = Figure(f"{many:,} images beside {few:,}", "MB more", round(peaks[many] - peaks[few]), at_most=100)
    return {"": [*figures, growth]}


def _peak(cache: Path, images: int) -> float:
    folder = photos.folder(cache / "photos", images, photos.SMALL, distinct=min(DISTINCT, images))
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        settings = Settings(
            run=RunSettings("bench", "bench", str(folder), models.DEMO, shard_images=images),
            storage=StorageSettings(Path(scratch).as_uri()),
            log=LogSettings(level="WARNING", result_file=os.devnull),
        )
        _stage("plan", settings)
        return _stage("embed", settings)


def _stage(stage: str, settings: Settings) -> float:
    """Runs a stage of the embedder; returns its maximum memory, in MB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "embedder", stage],
        env={**os.environ, **settings.to_env(), "JOB_COMPLETION_INDEX": "0"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{stage} exited with {process.returncode}"
    return usage.ru_maxrss * 1024 / 1e6
