"""What becomes of one completion index on machines that come and go: tried, lost, tried again, over. Pure.

The rules are those of an Indexed Job with `backoffLimitPerIndex` and a `podFailurePolicy`
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#backoff-limit-per-index), where each try has a machine
of its own. The next begins only when the machine of the one before is gone: no two of them on one shard.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from controller.jobs.manifests import final_codes
from controller.jobs.state import format_indexes
from imgsearch.errors import ExitCode

AGAIN = timedelta(seconds=60)
"""So long after no place had a machine, it is asked for again."""
MARK = "imgsearch-result"
BEGIN = "imgsearch-begins"
RESULT = re.compile(rf"^{MARK} (\d+) ?(.*)$", re.MULTILINE)
KILLED = 128 + 9


class Seen(StrEnum):
    """What there is of a task at one moment."""

    GONE = "gone"
    """Nothing, or a wreck: it was never begun, was given back, or its machine was taken away."""
    WAITING = "waiting"
    """Its machine is looked for, or made ready."""
    RUNNING = "running"
    ENDED = "ended"
    """Its log has the end of it."""
    NOWHERE = "nowhere"
    """No place had a machine for it now."""
    REFUSED = "refused"
    """No place can ever have one, or may be asked for one."""


@dataclass(frozen=True)
class Look:
    """One look at a task."""

    seen: Seen
    why: str = ""
    """Why it has no machine."""
    machine: bool = False
    """Whether there is something to give back."""


@dataclass(frozen=True)
class End:
    """What a task has said at its end."""

    code: int
    result: Mapping[str, Any] | None
    """Its termination message."""
    printed: str
    """What it printed from its beginning on."""


class Step(StrEnum):
    """How far a completion index is."""

    WANTS = "wants"
    """It has no task."""
    WAITS = "waits"
    RUNS = "runs"
    LEAVES = "leaves"
    """Its machine is given back."""
    OVER = "over"


@dataclass(frozen=True)
class Index:
    """One completion index. Times are ISO 8601."""

    step: Step = Step.WANTS
    succeeded: bool | None = None
    """None while it is to be tried, or tried again."""
    failures: int = 0
    """Tries that have ended badly; a machine that was taken away is none."""
    since: str = ""
    """Since when it wants a machine; empty while it has one or is over."""
    why: str = ""
    again: str = ""
    """Not to be tried before."""
    started: str = ""
    """When it got the machine that it has."""
    ended: str = ""
    seconds: float = 0.0
    """What it has had of machines before this one."""
    done: int = 0
    total: int = 0
    result: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Index:
        return replace(cls(**told), step=Step(told["step"]))


def submitted(index: Index, now: datetime) -> Index:
    """It has a task now."""
    return replace(index, step=Step.WAITS, since=index.since or _text(now), again="", result=None)


def advanced(index: Index, look: Look, end: End | None, spec: Mapping[str, Any], now: datetime) -> Index:
    """What a look at its task makes of it. `end` is what a task that has ENDED has said, None where it said nothing;
    `spec` the Job's."""
    if index.step in (Step.WAITS, Step.RUNS):
        index = _tried(index, look, end, spec, now)
    gone = not look.machine and look.seen is not Seen.WAITING
    return _left(index) if index.step is Step.LEAVES and gone else index


def given_up(index: Index, sentence: str, now: datetime) -> Index:
    """It has failed, whatever it is at."""
    if index.step is Step.OVER or index.succeeded is not None:
        return index
    failed = replace(index, succeeded=False, result={"error": sentence}, since="", why="")
    return replace(failed, step=Step.OVER) if index.step is Step.WANTS else _leaving(failed, now)


def was_refused(index: Index) -> bool:
    """Whether it was given up before any try of it had ended: no place may have it."""
    return index.succeeded is False and index.failures == 0


def next_tries(indexes: Mapping[int, Index], parallelism: int, now: datetime) -> list[int]:
    """Which indexes get a task now: the lowest first, `parallelism` at a time, those that leave included."""
    room = parallelism - sum(index.step not in (Step.WANTS, Step.OVER) for index in indexes.values())
    ready = [
        number
        for number, index in sorted(indexes.items())
        if index.step is Step.WANTS and not (index.again and now < datetime.fromisoformat(index.again))
    ]
    return ready[: max(0, room)]


def status(job: Mapping[str, Any], indexes: Mapping[int, Index]) -> dict[str, Any]:
    """The status of a batch/v1 Job whose indexes these are, added to what it has."""
    succeeded = {number for number, index in indexes.items() if index.succeeded}
    failed = {number for number, index in indexes.items() if index.succeeded is False}
    found = {
        **job.get("status", {}),
        "active": sum(index.step in (Step.WAITS, Step.RUNS) for index in indexes.values()),
        "completedIndexes": format_indexes(succeeded),
        "failedIndexes": format_indexes(failed),
    }
    # Only when the last machine is gone: who is told that all is over may turn the lights off.
    all_there = len(indexes) == job["spec"]["completions"]  # the others are somebody else's
    if all_there and all(index.step is Step.OVER for index in indexes.values()):
        end = max((index.ended for index in indexes.values()), default="")
        type, reason, message = "Complete", "CompletionsReached", ""
        if failed:
            type, reason, message = "Failed", "FailedIndexes", f"indexes {format_indexes(failed)} failed"
        else:
            found["completionTime"] = end
        found["conditions"] = [
            {"type": type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": end}
        ]
    return found


def waiting(indexes: Mapping[int, Index]) -> dict[str, int]:
    """Why indexes have no machine, and how many for each reason."""
    return dict(Counter(index.why for index in indexes.values() if index.since and index.why).most_common())


def waiting_since(indexes: Mapping[int, Index]) -> str:
    """Since when no index has had a machine while some want one; empty where one has, or none wants."""
    wants = [index.since for index in indexes.values() if index.since]
    if not wants or any(index.step is Step.RUNS for index in indexes.values()):
        return ""
    return max([min(wants), *(index.ended for index in indexes.values())])


def machine_hours(indexes: Mapping[int, Index], now: datetime) -> float:
    """What all tries have had of machines whose job had begun."""
    seconds = 0.0
    for index in indexes.values():
        seconds += index.seconds + (_seconds(index, now) if index.step is Step.RUNS else 0.0)
    return seconds / 3600


def script(run: str) -> str:
    """`run` as a task whose log says how it ended: by the protocol of a termination message, since a machine keeps no
    exit code that its own log would not tell better."""
    return (
        'export IMGSEARCH_LOG_RESULT_FILE="$(mktemp)"\n'
        f"echo {BEGIN}\n(\n{run.strip()}\n)\ncode=$?\n"
        # On a line of its own, also after a program that was killed in the middle of one.
        f'printf "\\n{MARK} %s %s\\n" "$code" "$(cat "$IMGSEARCH_LOG_RESULT_FILE")"\n'
        'exit "$code"\n'
    )


def end(log: str) -> End | None:
    """What the log of a task says of its end; None where it has none."""
    last = max(RESULT.finditer(log), key=re.Match.start, default=None)
    if last is None:
        return None
    try:
        result = json.loads(last[2])
    except ValueError:
        result = None
    printed = log[: last.start()].rpartition(f"{BEGIN}\n")[2].removesuffix("\n")
    return End(int(last[1]), result if isinstance(result, dict) else None, printed)


def _tried(index: Index, look: Look, end: End | None, spec: Mapping[str, Any], now: datetime) -> Index:
    match look.seen:
        case Seen.WAITING:
            return replace(index, step=Step.WAITS, since=index.since or _text(now), why=look.why)
        case Seen.RUNNING:
            return replace(index, step=Step.RUNS, since="", why="", started=index.started or _text(now))
        case Seen.ENDED:
            return _judged(index, end, spec, now)
        case Seen.GONE:
            return _leaving(index, now)
        case Seen.NOWHERE:
            return _leaving(replace(index, why=look.why, again=_text(now + AGAIN)), now)
        case Seen.REFUSED:
            return given_up(index, look.why, now)


def _judged(index: Index, end: End | None, spec: Mapping[str, Any], now: datetime) -> Index:
    # Its beginning may have been between two looks.
    ran = replace(index, started=index.started or _text(now), since="", why="", result=_message(end))
    if end is not None and end.code == ExitCode.DONE:
        return _leaving(replace(ran, succeeded=True), now)
    ran = replace(ran, failures=index.failures + 1)
    final = ran.failures > spec["backoffLimitPerIndex"] or (end is not None and end.code in final_codes(spec))
    return _leaving(replace(ran, succeeded=False if final else None), now)


def _message(end: End | None) -> Mapping[str, Any]:
    if end is None:
        return {"error": "its task has ended without a word; its log may tell why"}
    if end.result is not None:
        return end.result
    if end.code == ExitCode.DONE:
        return {}
    told = "it was killed: out of memory?" if end.code == KILLED else f"it ended with exit code {end.code}"
    return {"error": f"{told}; its log may tell why"}


def _leaving(index: Index, now: datetime) -> Index:
    had = _seconds(index, now) if index.started else 0.0
    ended = _text(now) if index.started or index.succeeded is not None else index.ended
    return replace(index, step=Step.LEAVES, started="", ended=ended, seconds=index.seconds + had)


def _left(index: Index) -> Index:
    return replace(index, step=Step.WANTS if index.succeeded is None else Step.OVER)


def _seconds(index: Index, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(index.started)).total_seconds())


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
