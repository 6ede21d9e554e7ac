"""Results of programs as typed documents: of a stage, of one completion index, of a short command. Pure.

A program writes its result, a JSON object, to its termination message and as the last line of its output
(imgsearch/stage.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgsearch import typed_json
from imgsearch.errors import ExitCode, ImgsearchError, PermanentError, TemporaryError, UsageError

ADVICE = "delete the Jobs of the run with `controller cleanup`, then give the same command again"
UNKNOWN_ERROR = "exited without a result; see its log"
PROGRESS_LINES = 50
"""Last lines of a log that are enough to find its progress."""


@dataclass(frozen=True)
class PlanResult:
    """Result of the plan."""

    shards: int
    images: int
    kept: int = 0
    """Images that an update keeps from the run before."""
    removed: int = 0
    """Images of the run before that an update no longer finds in the source."""
    dim: int | None = None
    """Of the model's vectors, where its configuration has it. A plan of an earlier version does not tell it."""

    @classmethod
    def from_json(cls, result: Mapping[str, Any], name: str) -> PlanResult:
        """Raises PermanentError, with `name`, for another result: without its shards, a run would look finished."""
        return typed_json.parse(cls, json.dumps(result), name, advice=ADVICE)


@dataclass(frozen=True)
class EmbedResult:
    """Result of one shard."""

    images: int
    bad: int

    @classmethod
    def from_json(cls, result: Mapping[str, Any]) -> EmbedResult:
        return cls(int(result.get("images", 0)), int(result.get("bad", 0)))

    @property
    def processed(self) -> int:
        return self.images + self.bad


@dataclass(frozen=True)
class IngestResult:
    """Result of the ingest, or the same fields of a run's report."""

    index: str
    images: int
    bad: int
    published: str | None
    """The run that the index serves."""

    @classmethod
    def from_json(cls, result: Mapping[str, Any], name: str) -> IngestResult:
        """Raises PermanentError, with `name`, for another result."""
        return typed_json.parse(cls, json.dumps(result), name, advice=ADVICE)


@dataclass(frozen=True)
class ErrorResult:
    """Result of a program that failed. Where it left none, the reason for that."""

    error: str

    @classmethod
    def from_json(cls, result: Mapping[str, Any] | None) -> ErrorResult:
        if not result:
            return cls(UNKNOWN_ERROR)
        return cls(str(result.get("error") or ("interrupted" if "interrupted" in result else UNKNOWN_ERROR)))

    def to_json(self) -> dict[str, Any]:
        return {"error": self.error}


@dataclass(frozen=True)
class IndexReport:
    """Result and progress of one completion index."""

    result: Mapping[str, Any] | None = None
    """Its termination message; None while it runs."""
    done: int = 0
    """Images finished, according to its log."""
    total: int = 0

    @property
    def error(self) -> str | None:
        """The error of a failed index; None where it left no result."""
        return ErrorResult.from_json(self.result).error if self.result else None

    @property
    def embedded(self) -> EmbedResult | None:
        """None while it runs, and where it left no result."""
        return EmbedResult.from_json(self.result) if self.result else None


@dataclass(frozen=True)
class Output:
    """Output of a short command."""

    result: Mapping[str, Any]
    """Its last line."""
    text: str
    """The lines before that."""

    def document(self) -> Any:
        """The JSON value on the line before the result. A library may print warnings before it.

        Raises ValueError where this line has not the size in bytes that the result tells: the log of a pod may be
        cut."""
        line = self.text.rstrip("\n").rpartition("\n")[2]
        if len(line.encode()) != self.result["bytes"]:
            raise ValueError(f"a document of {self.result['bytes']:,} bytes is incomplete")
        return json.loads(line)


def parse_output(output: str) -> Output:
    """Raises ValueError where the last line is not a result."""
    *text, last = output.rstrip("\n").split("\n")
    result = json.loads(last)
    if not isinstance(result, dict):
        raise ValueError(f"invalid result {last!r}: it must be a JSON object")
    return Output(result, "".join(f"{line}\n" for line in text))


def exit_error(code: int | None, message: str) -> ImgsearchError:
    """The error that a program's exit code stands for."""
    kinds: dict[int | None, type[ImgsearchError]] = {ExitCode.USAGE: UsageError, ExitCode.PERMANENT: PermanentError}
    return kinds.get(code, TemporaryError)(message)


def progress(lines: Sequence[bytes | str]) -> tuple[int, int]:
    """The last `done` and `total` in a program's log; zeros where it has none."""
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            return int(entry["done"]), int(entry["total"])
    return 0, 0
