"""Messages of SkyPilot in a form for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NOISE = re.compile(r"<sky-payload.*?</sky-payload>|\x1b\[[0-9;]*m|[➜✔✗]")
FAILED = re.compile(r"Error executing command(?!:).*?(?: on \S+: ?(?P<message>.*))?")
MESSAGE = re.compile(r"on \S+: ?(?P<message>.*)")
"""The last line of a remote command of several lines; its message follows."""


def clean(text: str) -> str:
    """Removes colours, payloads and marks."""
    return NOISE.sub("", text)


@dataclass(frozen=True)
class Line:
    """One line."""

    text: str
    failed: bool = False
    """Whether it is the message of a program that failed."""


def readable(log: Iterable[str]) -> Iterator[Line]:
    """The lines of a log without colours, payloads and commands for other machines, which may contain a password."""
    hidden = failed = False
    for line in log:
        text = clean(line).strip()
        if found := FAILED.fullmatch(text):
            failed, hidden = True, found["message"] is None
            text = found["message"] or ""
        elif hidden:
            found = MESSAGE.fullmatch(text)
            hidden = found is None
            text = found["message"] if found else ""
        elif text.startswith("STDERR:"):  # of a command on this machine
            failed, text = True, text.removeprefix("STDERR:").strip()
        elif not text:
            failed = False
        if text:
            yield Line(text, failed)


def failure_reason(name: str, output: Iterable[Line], errors: Sequence[str]) -> str:
    """The reason why a pool failed. The last error names the step, and the output contains the message of the program
    that failed in it."""
    step = (errors[-1] if errors else "no reason given").removeprefix(f"{name}: ").split(". ")[0].rstrip(".")
    messages = [line.text for line in output if line.failed and not line.text.startswith("Successfully")]
    return f"{step} ({messages[-1]})" if messages else step
