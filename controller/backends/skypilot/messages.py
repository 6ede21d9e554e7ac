"""What SkyPilot says, as a person may read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NOISE = re.compile(r"<sky-payload.*?</sky-payload>|\x1b\[[0-9;]*m|[➜✔✗]")
FAILED = re.compile(r"Error executing command(?!:).*?(?: on \S+: ?(?P<words>.*))?")
WORDS = re.compile(r"on \S+: ?(?P<words>.*)")
"""A command of several lines, on another machine: what it says stands after its last one."""


def clean(text: str) -> str:
    """Without colours, payloads and marks."""
    return NOISE.sub("", text)


@dataclass(frozen=True)
class Line:
    """One line of it."""

    text: str
    failed: bool = False
    """They are the words of a program that has failed."""


def spoken(log: Iterable[str]) -> Iterator[Line]:
    """What there is to read in a log of SkyPilot: no colours, no payloads, and no commands for other machines: they may
    have a password in them."""
    hidden = failed = False
    for line in log:
        text = clean(line).strip()
        if found := FAILED.fullmatch(text):
            failed, hidden = True, found["words"] is None
            text = found["words"] or ""
        elif hidden:
            found = WORDS.fullmatch(text)
            hidden = found is None
            text = found["words"] if found else ""
        elif text.startswith("STDERR:"):  # of a command on this machine
            failed, text = True, text.removeprefix("STDERR:").strip()
        elif not text:
            failed = False
        if text:
            yield Line(text, failed)


def failure(name: str, said: Iterable[Line], told: Sequence[str]) -> str:
    """Why a pool has failed, from SkyPilot's log and from the lines of its last error: that names the step, and the log
    has the words of the program that failed in it."""
    step = (told[-1] if told else "it gave no reason").removeprefix(f"{name}: ").split(". ")[0].rstrip(".")
    words = [line.text for line in said if line.failed and not line.text.startswith("Successfully")]
    return f"{step} ({words[-1]})" if words else step
