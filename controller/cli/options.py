"""The options of commands as values. One definition of an option serves argparse and the way back to arguments."""

# ruff: noqa: RUF009 -- option() returns a field of the dataclass

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

from controller.gpus.accelerators import Kind, kinds
from controller.gpus.nodes import Spot

DEFAULT_MODEL = "ViT-B-32/laion2b_s34b_b79k"
DEFAULT_HOME = Path("~/.imgsearch")
DEFAULT_RELEASE = "imgsearch"
BACKENDS = ("kubernetes", "sky")

T = TypeVar("T")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _kinds_text(alternatives: Sequence[Kind]) -> str:
    return ",".join(kind.name for kind in alternatives)


def option(
    help: str,
    *,
    default: Any = MISSING,
    flags: Sequence[str] = (),
    parse: Callable[[str], Any] = str,
    write: Callable[[Any], str] = str,
    metavar: str | None = None,
    choices: Sequence[Any] | None = None,
    one_of: str | None = None,
) -> Any:
    """A field of an options class. Without a default it is a positional argument; with the default False it is a
    switch; with `()` and no parser of its own it may be repeated. `flags` is needed where the flag is not the field's
    name. Only one option of those with the same `one_of` may be used."""
    metadata = {
        "help": help,
        "flags": flags,
        "parse": parse,
        "write": write,
        "metavar": metavar,
        "choices": choices,
        "one_of": one_of,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TargetOptions:
    """The options of every command that works with runs: where it works."""

    release: str = option(
        f"Name of the chart's release. Default: {DEFAULT_RELEASE}", default=DEFAULT_RELEASE, metavar="R"
    )
    namespace: str | None = option(
        "Namespace of the release. Default: the namespace of the context",
        default=None,
        flags=("-n", "--namespace"),
        metavar="N",
    )
    context: str | None = option(
        "Context of the kubeconfig. Default: the current context", default=None, metavar="C", one_of="cluster"
    )
    pool: str | None = option("A pool that `pools up` created", default=None, metavar="NAME", one_of="cluster")
    local: bool = option("Work on this machine: run Jobs as processes", default=False)
    backend: str = option(
        "sky: rent machines with SkyPilot, without Kubernetes (sky/README.md). Default: kubernetes",
        default=BACKENDS[0],
        choices=BACKENDS,
    )
    sky_tasks: Path | None = option(
        "Folder with the task files of SkyPilot. Default: the task files of this package",
        default=None,
        parse=Path,
        metavar="DIR",
    )
    home: Path | None = option(
        "Work on this machine, with runs and vectors in DIR. With --backend sky: state of its tasks. "
        f"Default: {DEFAULT_HOME}",
        default=None,
        parse=Path,
        metavar="DIR",
    )


@dataclass(frozen=True)
class RunOptions:
    """The options of `run-pipeline`."""

    source: str = option(
        "A folder, s3://BUCKET/PREFIX (gs://, az://), 'DIR/*.parquet' in either, or hf://datasets/NAME?split=train",
        metavar="SOURCE",
    )
    index: str = option("Name of the published index. Default: photos", default="photos", metavar="NAME")
    model: str | None = option(
        f"OpenCLIP ARCH/TAG, or local-dir:PATH. Default: the release's model, or {DEFAULT_MODEL}", default=None
    )
    run: str | None = option("Id of the run. Default: a hash of source, model and options", default=None, metavar="ID")
    update: bool = option("Embed only images that are new or changed since the published run", default=False)
    shard_size: int | None = option(
        "Images in a shard. Default: the release's value, or 10000", default=None, parse=positive, metavar="N"
    )
    accelerators: tuple[Kind, ...] = option(
        "The GPU of a pod; alternatives are separated by commas. Default: the release's GPU",
        default=(),
        flags=("--accelerator",),
        parse=kinds,
        write=_kinds_text,
        metavar="L4,…",
    )
    overflow: str | None = option(
        "Backend for shards that wait too long for a node: sky rents machines for them",
        default=None,
        choices=("sky",),
    )
    overflow_after: float = option(
        "Seconds that a shard waits for a node before it overflows. Default: 600 s",
        default=600.0,
        parse=float,
        metavar="SECONDS",
    )
    spot: Spot | None = option(
        "Prefer spot nodes, use only them, or never. Default: the release's choice",
        default=None,
        parse=Spot,
        choices=[*Spot],
    )
    parallelism: int | None = option(
        "Shards at a time. Default: as many as the cluster has GPUs for; 1 on this machine, where it uses every core",
        default=None,
        parse=positive,
        metavar="N",
        one_of="parallelism",
    )
    max_parallelism: int | None = option(
        "The most shards at a time. The number follows the free GPUs. Needs --accelerator. Not in a queue of Kueue",
        default=None,
        parse=positive,
        metavar="N",
        one_of="parallelism",
    )
    overrides: tuple[str, ...] = option(
        "Change a setting, for example embed.batch_images=64. May be repeated",
        default=(),
        flags=("--set",),
        metavar="PATH=VALUE",
    )
    detach: bool = option("Run the controller as a Job in the cluster and return", default=False)
    dry_run: bool = option("Print the Jobs and let the cluster check them. Create nothing", default=False)


@dataclass(frozen=True)
class ServeOptions:
    """The options of `controller serve`."""

    host: str = option("Address to listen on. Default: 127.0.0.1", default="127.0.0.1")
    port: int = option("Port to listen on. Default: 8000", default=8000, parse=int)
    overrides: tuple[str, ...] = option(
        "Change a setting, for example search.root_path=/photos. May be repeated",
        default=(),
        flags=("--set",),
        metavar="PATH=VALUE",
    )


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, cls: type[Any]) -> None:
    """Adds each field of an options class as an argument."""
    exclusive: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for field in dataclasses.fields(cls):
        spec = field.metadata
        target: Any = parser
        if name := spec["one_of"]:
            target = exclusive[name] = exclusive.get(name) or parser.add_mutually_exclusive_group()
        if field.default is MISSING:
            target.add_argument(field.name, metavar=spec["metavar"], help=spec["help"])
        elif field.default is False:
            target.add_argument(_flag(field), dest=field.name, action="store_true", help=spec["help"])
        else:
            target.add_argument(
                *(spec["flags"] or [_flag(field)]),
                dest=field.name,
                action="append" if _is_repeated(field) else "store",
                default=None if _is_repeated(field) else field.default,
                type=spec["parse"],
                metavar=spec["metavar"],
                choices=spec["choices"],
                help=spec["help"],
            )


def read_options(cls: type[T], args: argparse.Namespace) -> T:
    """The value of an options class whose arguments were parsed."""
    values: dict[str, Any] = {field.name: getattr(args, field.name) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if _is_repeated(field):
            values[field.name] = tuple(values[field.name] or ())
    return cls(**values)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select the target of a command."""
    add_options(parser.add_argument_group("target"), TargetOptions)


def read_target(args: argparse.Namespace) -> TargetOptions:
    return read_options(TargetOptions, args)


def to_arguments(options: Any) -> list[str]:
    """The arguments of a command line that give these options. Options with their default value are left out."""
    written: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.default is MISSING:
            written.append(value)
        elif value is True:
            written.append(_flag(field))
        elif _is_repeated(field):
            written += [word for item in value for word in (_flag(field), item)]
        elif value != field.default:
            written += [_flag(field), field.metadata["write"](value)]
    return written


def _flag(field: dataclasses.Field[Any]) -> str:
    """The long flag of an option."""
    flags: Sequence[str] = field.metadata["flags"]
    return flags[-1] if flags else f"--{field.name.replace('_', '-')}"


def _is_repeated(field: dataclasses.Field[Any]) -> bool:
    return field.default == () and field.metadata["parse"] is str
