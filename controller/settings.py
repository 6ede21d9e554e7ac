"""What the command line says, as the settings of a run on this machine."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import replace
from pathlib import Path

from controller.plan import run_id
from imgsearch.errors import UsageError
from imgsearch.layout import RunFolder
from imgsearch.settings import (
    LogSettings,
    RunSettings,
    SearchSettings,
    Settings,
    StorageSettings,
    StoreSettings,
)

MODEL = "ViT-B-32/laion2b_s34b_b79k"
INDEX_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?")


def local_settings(home: Path) -> Settings:
    """Storage and store below `home`."""
    root = home.expanduser().resolve()
    return Settings(
        storage=StorageSettings(uri=(root / "storage").as_uri()),
        store=StoreSettings(url="chroma+" + (root / "chroma").as_uri()),
    )


def with_run(
    settings: Settings,
    *,
    source: str,
    index: str,
    model: str,
    run: str | None,
    shard_images: int,
    base: str | None,
) -> Settings:
    """Adds what is to be run; computes its id unless one is given. Raises UsageError for a name that can't be one."""
    if not INDEX_NAME.fullmatch(index):
        raise UsageError(
            f"{index!r} cannot be an index name: use lower-case letters, digits, dots, dashes, underscores"
        )
    if shard_images < 1:
        raise UsageError("--shard-size must be at least 1")
    told = RunSettings(
        index=index,
        source=_absolute(source),
        model=_model(model),
        base=base,
        shard_images=shard_images,
    )
    told = replace(told, id=run or run_id(told))
    RunFolder(told.id)
    return replace(settings, run=told)


def check_paths(source: str, model: str) -> None:
    """Raises UsageError for a folder that is not on this machine, before anything is started."""
    if "://" not in source:
        _must_exist("source", source.partition("?")[0])
    if model.startswith("local-dir:"):
        _must_exist("model", model.removeprefix("local-dir:"))


def _must_exist(what: str, path: str) -> None:
    full = os.path.expanduser(path)
    if not os.path.exists(full) and not glob.glob(full):
        raise UsageError(f"there is no {what} {path}: check the path")


def serving(settings: Settings, *, host: str, port: int) -> Settings:
    return replace(settings, search=SearchSettings(host=host, port=port), log=LogSettings(format="text"))


def _absolute(source: str) -> str:
    """A path made absolute, so that the same folder is the same run from wherever the command is given."""
    if "://" in source:
        return source
    path, mark, options = source.partition("?")
    return os.path.abspath(os.path.expanduser(path)) + mark + options


def _model(model: str) -> str:
    if model.startswith("local-dir:"):
        return "local-dir:" + os.path.abspath(os.path.expanduser(model.removeprefix("local-dir:")))
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", model):
        raise UsageError(f"{model!r} is no model: use ARCH/TAG as in {MODEL}, or local-dir:PATH")
    return model
