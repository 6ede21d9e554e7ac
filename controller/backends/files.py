"""Files of the controller on this machine: replaced as a whole, never written in part."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NotRequired, TypeVar, cast

import yaml
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from imgsearch import labels, typed_json
from imgsearch.errors import UsageError

T = TypeVar("T")

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""Errors of flock on a file system without locks, such as some of NFS and FUSE."""


class NoLocks(UsageError):
    """The file system has no locks."""


def lock(file: IO[Any], operation: int) -> None:
    """`fcntl.flock`. Raises NoLocks, and what flock raises for another reason."""
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise NoLocks(
            f"the file system of {file.name} has no locks (flock): choose a folder on a local disk with --home"
        ) from error


def write_atomically(file: Path, text: str, *, mode: int = 0o644) -> None:
    """Replaces a file. A write that fails changes nothing, and its OSError has the name of the file.

    A process that is killed meanwhile leaves the partial file. The next writer of the same file uses it again. On a
    file system without locks, each writer has its own."""
    target = file.resolve()  # a symbolic link stays one
    try:
        with _partial(target.with_name(f".{target.name}.partial")) as partial:
            _replace(target, partial, text, mode)
    except OSError as error:
        error.filename = error.filename or str(target)  # that of a full disk has none
        raise


def _replace(target: Path, partial: IO[str], text: str, mode: int) -> None:
    try:
        os.fchmod(partial.fileno(), mode)
        partial.truncate(0)
        partial.write(text)
        partial.flush()
        os.replace(partial.name, target)
    except BaseException:
        Path(partial.name).unlink(missing_ok=True)
        raise


def _partial(path: Path) -> IO[str]:
    """Opens a partial file for one writer at a time; other writers wait."""
    while True:
        # Private from its first moment: a program that opens it early can read the kubeconfig that is written later.
        file = open(path, "a", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        try:
            lock(file, fcntl.LOCK_EX)
        except NoLocks:
            file.close()
            path.unlink(missing_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=path.suffix)
            os.close(descriptor)
            return open(name, "a")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the writer before has renamed or deleted it


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_atomically(file, json.dumps(content, indent=1))


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty where the file does not exist. Raises UsageError for an invalid file."""
    try:
        content = yaml.safe_load(file.read_text()) if file.exists() else None
    except yaml.YAMLError as error:
        raise UsageError(f"invalid YAML in {file}: {' '.join(str(error).split())}") from error
    if not isinstance(content or {}, dict):
        raise UsageError(f"invalid content of {file}: it must be a mapping")
    return content or {}


def write_yaml(file: Path, content: Mapping[str, Any]) -> None:
    """Only the owner may read the file: it may contain credentials."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, yaml.safe_dump(dict(content), sort_keys=False), mode=0o600)


@with_config(ConfigDict(extra="allow"))
class JobMetadata(TypedDict):
    """The metadata of a Job, as far as the controller reads them."""

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]


@with_config(ConfigDict(extra="allow"))
class JobSpec(TypedDict):
    """The spec of a Job, as far as the controller reads it."""

    completions: int
    parallelism: int
    template: dict[str, Any]


@with_config(ConfigDict(extra="allow"))
class StoredJob(TypedDict):
    """A `job.json`."""

    metadata: JobMetadata
    spec: JobSpec
    status: NotRequired[dict[str, Any]]


def read_job(folder: Path) -> dict[str, Any] | None:
    """The `job.json` of a Job; None where it has none. Raises PermanentError for a damaged one."""
    return cast(dict[str, Any] | None, read_json(folder / "job.json", StoredJob))


def read_json(file: Path, type: type[T]) -> T | None:
    """A document in the folder of a Job; None where it does not exist. Raises PermanentError for a damaged one."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    return typed_json.parse(
        type, data, str(file), advice=f"delete the folder {file.parent}, then give the same command again"
    )


def runs_below(jobs: Path) -> list[str]:
    """Runs that have a `<job>/job.json` in this folder, the latest last."""
    files = sorted(jobs.glob("*/job.json"), key=lambda file: file.stat().st_ctime)
    stored = filter(None, (read_job(file.parent) for file in files))
    return list(dict.fromkeys(job["metadata"]["labels"][labels.RUN] for job in stored))
