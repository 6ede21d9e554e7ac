"""The settings of a run, from the settings of its target and the options of the command line."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.cli.options import DEFAULT_MODEL, ServeOptions
from controller.run.steps import run_id
from imgsearch import machine
from imgsearch.errors import UsageError
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import PREFIX, JobSettings, Settings, StorageSettings, StoreSettings
from imgsearch.sources.uri import parse_source

INDEX_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?")


def local_settings(home: Path) -> Settings:
    """Storage and store below `home`, in the memory of this machine."""
    root = home.expanduser().resolve()
    return Settings(
        jobs=JobSettings(store_memory=machine.memory()),
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
    """Adds the run to the settings of the target. Computes the run's id where `run` is None.

    Raises UsageError for an invalid name."""
    if not INDEX_NAME.fullmatch(index):
        raise UsageError(f"invalid index name {index!r}: use lower-case letters, digits, dots, dashes and underscores")
    release = settings.run
    changed = settings.with_values(
        {
            "run.index": index,
            "run.source": source,
            "run.model": _model(model or release.model or DEFAULT_MODEL),
            "run.base": base,
            "run.shard_images": release.shard_images if shard_images is None else shard_images,
        }
    )
    id = run or run_id(changed.run)
    RunFolder(id)
    return changed.with_values({"run.id": id})


def overridden(settings: Settings, overrides: Sequence[str]) -> Settings:
    """`settings` with each `group.field=value`. Raises UsageError for an invalid one."""
    values = {}
    for override in overrides:
        path, mark, value = override.partition("=")
        if not mark or path.count(".") != 1:
            raise UsageError(
                f"invalid --set {override}: use PATH=VALUE, for example embed.batch_images=64 (see docs/settings.md)"
            )
        values[path] = value
    return settings.with_values(values)


def metrics_port(env: Mapping[str, str]) -> int | None:
    """The only setting that the controller reads from its own environment: the chart sets the port of a pod."""
    name = f"{PREFIX}_METRICS_PORT"
    return Settings.from_env({name: env.get(name, "")}).metrics.port


def serving(settings: Settings, options: ServeOptions) -> Settings:
    """The settings of a searcher that serves on this machine. Raises UsageError for an invalid override."""
    served = settings.with_values({"search.host": options.host, "search.port": options.port, "log.format": "text"})
    return overridden(served, options.overrides)


def check_source(source: str) -> None:
    """Raises UsageError for a folder that does not exist on this machine."""
    if path := parse_source(source).path:
        _check_exists("source", path)


def check_model(model: str | None) -> None:
    """Raises UsageError for a folder of a model that does not exist on this machine."""
    if model and model.startswith("local-dir:"):
        _check_exists("model", model.removeprefix("local-dir:"))


def local_source(source: str) -> str:
    """A path made absolute, so that the same folder gives the same run from every working directory."""
    uri = parse_source(source)
    return uri.with_path(os.path.abspath(os.path.expanduser(uri.path))) if uri.path else source


def pod_source(source: str) -> str:
    """A source that pods can read. Raises UsageError for a path that exists only on this machine."""
    path = parse_source(source).path
    if path and not path.startswith("/"):
        raise UsageError(
            f"source {source!r} is a path on this machine. In a cluster, use the path in its pods (/sources/NAME; see "
            "`sources` in the chart's values) or a bucket. To work on this machine, add --local"
        )
    return source


def pod_model(model: str | None) -> str | None:
    """A model that pods can read. Raises UsageError for a folder that exists only on this machine."""
    if model and model.startswith("local-dir:") and not model.startswith("local-dir:/"):
        raise UsageError(
            f"model {model!r} is a folder on this machine. In a cluster, use its path in the pods (/models/NAME)"
        )
    return model


def _check_exists(kind: str, path: str) -> None:
    full = os.path.expanduser(path)
    if not os.path.exists(full) and not glob.glob(full):
        raise UsageError(f"the {kind} {path} does not exist: check the path")


def _model(model: str) -> str:
    if model.startswith("local-dir:"):
        return "local-dir:" + os.path.abspath(os.path.expanduser(model.removeprefix("local-dir:")))
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", model):
        raise UsageError(f"invalid model {model!r}: use ARCH/TAG, for example {DEFAULT_MODEL}, or local-dir:PATH")
    return model
