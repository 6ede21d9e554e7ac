"""What a program's output says: how far it is, and its answer. Pure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgsearch.errors import ExitCode, ImgsearchError, PermanentError, TemporaryError, UsageError


@dataclass(frozen=True)
class Answer:
    """What a short program has answered."""

    result: Mapping[str, Any]
    """Its last line."""
    text: str
    """What it printed before that."""


def answer(output: str) -> Answer:
    """Raises ValueError where the last line is no result."""
    *text, last = output.rstrip("\n").split("\n")
    result = json.loads(last)
    if not isinstance(result, dict):
        raise ValueError(f"{last!r} is no result")
    return Answer(result, "".join(f"{line}\n" for line in text))


def failure(code: int | None, sentence: str) -> ImgsearchError:
    """What a program's exit code makes of the sentence that it left."""
    kinds: dict[int | None, type[ImgsearchError]] = {ExitCode.USAGE: UsageError, ExitCode.PERMANENT: PermanentError}
    return kinds.get(code, TemporaryError)(sentence)


def progress(lines: Sequence[bytes | str]) -> tuple[int, int]:
    """The last `done` and `total` that a program logged; zeros before its first."""
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            return int(entry["done"]), int(entry["total"])
    return 0, 0
