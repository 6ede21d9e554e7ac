"""The settings that several programs read."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from imgsearch.settings.fields import Port, PositiveInt, Share, setting

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@dataclass(frozen=True)
class RunSettings:
    """One run: one indexing of one source with one model."""

    id: str = setting("", "The run's id, which is the name of its folder under `runs/`.")
    index: str = setting("", "The name of the index that the run publishes.")
    source: str = setting(
        "",
        "The images: a folder, `s3://bucket/prefix` (`gs://`, `az://`), a `.parquet` file or pattern, or "
        "`hf://datasets/…`.",
    )
    model: str = setting("", "An OpenCLIP `ARCH/TAG`, or `local-dir:PATH`.")
    base: str | None = setting(None, "For an update: the published run that it starts from. None: index everything.")
    shard_images: PositiveInt = setting(10_000, "Images in a shard, approximately.")
    part_images: PositiveInt = setting(2_000, "Images in a part. A killed pod loses one part at most.")


@dataclass(frozen=True)
class IndexSettings:
    """The index that a run publishes."""

    recall: Share = setting(
        0.99,
        "The recall@10 and recall@100 that a search must reach. Ingest measures it before it publishes the run, and "
        "searches then look at as many candidates as it needs (docs/search-quality.md). Below it, the run is published "
        "with a warning. A higher value makes searches slower.",
    )


@dataclass(frozen=True)
class StorageSettings:
    """The storage of run folders."""

    uri: str = setting("", "A URI: `file://`, `s3://`, `gs://` or `az://`. Runs are in its folder `runs/`.")


@dataclass(frozen=True)
class StoreSettings:
    """The vector store."""

    url: str = setting("", "`chroma+file:///folder` (embedded), `chroma+http://host:8000` or `chroma+https://host`.")


@dataclass(frozen=True)
class MetricsSettings:
    """Metrics of the programs that run as Jobs."""

    port: Port | None = setting(
        None,
        "Port of the Prometheus metrics of the embedder, of ingest and of the controller while they run. None: no "
        "port. The searcher has /metrics on its own port.",
    )


@dataclass(frozen=True)
class LogSettings:
    """Logs, and the result of a stage."""

    format: Literal["json", "text"] = setting("json", "Format of the log: one JSON object a line, or text for people.")
    level: LogLevel = setting("INFO", "The least severe level that is logged.")
    result_file: str = setting(
        "/dev/termination-log",
        "File to which a stage writes its result for the controller (Kubernetes' termination message).",
    )
