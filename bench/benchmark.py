"""Runs one benchmark: the module of that name."""

from __future__ import annotations

import importlib
import logging
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from bench.results import Result
from bench.worker import Function

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench"
"""Photos and models with random weights, kept for the next run."""


def benchmark(name: str) -> Function:
    """Returns a function that runs the benchmark. Call it in a process of its own, so that it imports only what this
    benchmark needs."""
    logging.disable()
    CACHE.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"bench.{name}")

    def run(quick: bool) -> Result:
        tables = module.measure(CACHE, quick=quick)
        return Result(
            name=name,
            title=module.TITLE,
            method=module.METHOD,
            machine=machine(),
            date=datetime.now(UTC).date().isoformat(),
            quick=quick,
            tables=tables,
        )

    return run


def machine() -> str:
    """The number of cores and their model."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {names[0] if names else platform.processor()}"


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
