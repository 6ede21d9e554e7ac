"""What the command line says, as the settings of a run."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.run.steps import run_id
from imgsearch.errors import UsageError
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import (
    PREFIX,
    Settings,
    StorageSettings,
    StoreSettings,
)
from imgsearch.sources.uri import parse

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
    model: str | None,
    run: str | None,
    shard_images: int | None,
    base: str | None,
) -> Settings:
    """Adds what is to be run to what the place says; computes its id unless one is given.

    Raises UsageError for a name that can't be one."""
    if not INDEX_NAME.fullmatch(index):
        raise UsageError(
            f"{index!r} cannot be an index name: use lower-case letters, digits, dots, dashes, underscores"
        )
    known = settings.run
    changed = settings.with_values(
        {
            "run.index": index,
            "run.source": source,
            "run.model": _model(model or known.model or MODEL),
            "run.base": base,
            "run.shard_images": known.shard_images if shard_images is None else shard_images,
        }
    )
    id = run or run_id(changed.run)
    RunFolder(id)
    return changed.with_values({"run.id": id})


def overridden(settings: Settings, given: Sequence[str]) -> Settings:
    """`settings` with each `group.field=value`; raises UsageError for one that is none."""
    values = {}
    for each in given:
        path, mark, value = each.partition("=")
        if not mark or path.count(".") != 1:
            raise UsageError(
                f"--set {each} is no PATH=VALUE, such as embed.batch_images=64; docs/settings.md lists them"
            )
        values[path] = value
    return settings.with_values(values)


def metrics_port(env: Mapping[str, str]) -> int | None:
    """The one setting that the controller takes from its own environment: a pod's port is the chart's business."""
    name = f"{PREFIX}_METRICS_PORT"
    return Settings.from_env({name: env.get(name, "")}).metrics.port


def check_source(source: str) -> None:
    """Raises UsageError for a folder that is not on this machine, before anything is started."""
    if path := parse(source).path:
        _must_exist("source", path)


def check_model(model: str | None) -> None:
    """Raises UsageError for a model's folder that is not on this machine."""
    if model and model.startswith("local-dir:"):
        _must_exist("model", model.removeprefix("local-dir:"))


def _must_exist(what: str, path: str) -> None:
    full = os.path.expanduser(path)
    if not os.path.exists(full) and not glob.glob(full):
        raise UsageError(f"there is no {what} {path}: check the path")


def serving(settings: Settings, *, host: str, port: int) -> Settings:
    return settings.with_values({"search.host": host, "search.port": port, "log.format": "text"})


def source_there(source: str) -> str:
    """A source as pods find it; raises UsageError for a path that only means something on this machine."""
    path = parse(source).path
    if path and not path.startswith("/"):
        raise UsageError(
            f"{source!r} is a path on this machine: in a cluster, name the folder as its pods see it (/sources/NAME; "
            "`sources` in the chart's values) or a bucket, or say --local to work here"
        )
    return source


def model_there(model: str | None) -> str | None:
    """A model as pods find it; raises UsageError for a folder that only means something on this machine."""
    if model and model.startswith("local-dir:") and not model.startswith("local-dir:/"):
        raise UsageError(f"{model!r} is a folder on this machine: in a cluster, name it as pods see it (/models/NAME)")
    return model


def source_here(source: str) -> str:
    """A path made absolute, so that the same folder is the same run from wherever the command is given."""
    uri = parse(source)
    return uri.with_path(os.path.abspath(os.path.expanduser(uri.path))) if uri.path else source


def _model(model: str) -> str:
    if model.startswith("local-dir:"):
        return "local-dir:" + os.path.abspath(os.path.expanduser(model.removeprefix("local-dir:")))
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", model):
        raise UsageError(f"{model!r} is no model: use ARCH/TAG as in {MODEL}, or local-dir:PATH")
    return model
