"""YAML files of the person's: each a mapping, which is replaced as a whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from imgsearch import labels
from imgsearch.errors import UsageError


def read(file: Path) -> dict[str, Any]:
    """The mapping; empty where there is none. Raises UsageError where it is something else."""
    try:
        found = yaml.safe_load(file.read_text()) if file.exists() else None
    except yaml.YAMLError as error:
        raise UsageError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found or {}, dict):
        raise UsageError(f"{file} cannot be read: it is no mapping")
    return found or {}


def write(file: Path, content: Mapping[str, Any]) -> None:
    """All of it or nothing, for its owner alone: it may have keys in it."""
    real = file.resolve()  # a link stays one
    real.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=real.parent, prefix=f".{real.name}.", delete=False) as new:
        yaml.safe_dump(dict(content), new, sort_keys=False)
    os.replace(new.name, real)


def runs_below(jobs: Path) -> list[str]:
    """Runs that have a `<job>/job.json` in this folder, the latest last."""
    files = sorted(jobs.glob("*/job.json"), key=lambda file: file.stat().st_ctime)
    return list(dict.fromkeys(json.loads(file.read_text())["metadata"]["labels"][labels.RUN] for file in files))
