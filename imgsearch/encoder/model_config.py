"""The configuration of a model, read from its JSON file. OpenCLIP is not imported for it, which takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgsearch.encoder import LOCAL

FOLDER_CONFIG = "open_clip_config.json"
"""In the folder of a `local-dir:` model."""


def configuration(model: str) -> Mapping[str, Any]:
    """OpenCLIP's `model_cfg` of `ARCH/TAG` or `local-dir:PATH`, with `embed_dim`, `vision_cfg` and `text_cfg`.

    Empty where there is none, or none that can be read: the error of the model's first load names the problem."""
    try:
        if model.startswith(LOCAL):
            found = json.loads((Path(model.removeprefix(LOCAL)) / FOLDER_CONFIG).read_bytes())["model_cfg"]
        else:
            found = json.loads((_architectures() / f"{model.partition('/')[0]}.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def dim(model: str) -> int | None:
    """The dimension of the model's vectors, if its configuration has it."""
    found = configuration(model).get("embed_dim")
    return found if isinstance(found, int) and found > 0 else None


def _architectures() -> Path:
    """The folder with the configurations that OpenCLIP has."""
    package = find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("open_clip is not installed")
    return Path(package.submodule_search_locations[0]) / "model_configs"
