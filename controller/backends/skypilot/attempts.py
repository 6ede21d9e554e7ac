"""Attempts of completion indexes on machines that may disappear: when to start one, to retry it, or to give up. Pure.

The rules are those of an Indexed Job with `backoffLimitPerIndex` and a `podFailurePolicy`
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#backoff-limit-per-index). Each attempt has a machine of
its own. The next one starts when the machine of the last one is gone, so that no two run the same shard.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from controller.jobs import conditions
from controller.jobs.indexes import format_indexes
from controller.jobs.manifests import final_codes
from controller.jobs.results import UNKNOWN_ERROR, ErrorResult
from imgsearch import typed_json
from imgsearch.errors import ExitCode

RETRY_DELAY = timedelta(seconds=60)
"""Time until the next request after no place had a machine."""
RESULT_MARK = "imgsearch-result"
BEGIN_MARK = "imgsearch-begins"
RESULT = re.compile(rf"^{RESULT_MARK} (\d+) ?(.*)$", re.MULTILINE)
KILLED = 128 + 9


class TaskStatus(StrEnum):
    """Status of a task at one moment."""

    GONE = "gone"
    """It was never started, it was ended, or its machine was lost."""
    WAITING = "waiting"
    """Its machine is being found or prepared."""
    RUNNING = "running"
    ENDED = "ended"
    """Its log is complete."""
    UNAVAILABLE = "unavailable"
    """No place has a machine for it now."""
    REFUSED = "refused"
    """No place will have one, or this account is not allowed to rent it."""


@dataclass(frozen=True)
class TaskState:
    """A task at one moment."""

    status: TaskStatus
    reason: str = ""
    """The reason why it has no machine."""
    machine: bool = False
    """Whether it has a machine to return."""


@dataclass(frozen=True)
class Exit:
    """End of a task, from its log."""

    code: int
    result: Mapping[str, Any] | None
    """Its termination message."""
    printed: str
    """Its output."""


class IndexStep(StrEnum):
    """Progress of a completion index. The values are in the files of runs, so they stay."""

    QUEUED = "wants"
    """It has no task."""
    STARTING = "waits"
    RUNNING = "runs"
    STOPPING = "leaves"
    """Its machine is being returned."""
    DONE = "over"


@dataclass(frozen=True)
class IndexState:
    """One completion index at one moment. Times are ISO 8601."""

    step: IndexStep = IndexStep.QUEUED
    succeeded: bool | None = None
    """None before it is decided."""
    failures: int = 0
    """Failed attempts. A lost machine does not count."""
    since: str = ""
    """The time since which it needs a machine; empty while it has one or is done."""
    reason: str = ""
    """The reason why it waits."""
    retry_at: str = ""
    started: str = ""
    """The time at which it received its machine."""
    ended: str = ""
    seconds: float = 0.0
    """Machine time of the earlier attempts."""
    done: int = 0
    total: int = 0
    result: Mapping[str, Any] | None = None

    @property
    def has_task(self) -> bool:
        return self.step not in (IndexStep.QUEUED, IndexStep.DONE)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], name: str) -> IndexState:
        """Raises PermanentError, with the name of the document, for another entry."""
        fields = {FIELDS.get(field, field): value for field, value in entry.items()}
        return typed_json.parse(
            cls, json.dumps(fields), name, advice="delete its folder, then give the same command again"
        )

    def to_json(self) -> dict[str, Any]:
        names = {field: name for name, field in FIELDS.items()}
        return {names.get(field, field): value for field, value in asdict(self).items()}


FIELDS = {"why": "reason", "again": "retry_at"}
"""Fields by their names in the files of runs, where these differ."""


def submitted(index: IndexState, now: datetime) -> IndexState:
    """The index after its task was submitted."""
    return replace(index, step=IndexStep.STARTING, since=index.since or _text(now), retry_at="", result=None)


def advanced(
    index: IndexState, task: TaskState, exit: Exit | None, spec: Mapping[str, Any], now: datetime
) -> IndexState:
    """The index after its task was observed. `exit` is that of an ENDED task, None where its log has none; `spec` is
    the Job's."""
    if index.step in (IndexStep.STARTING, IndexStep.RUNNING):
        index = _observed(index, task, exit, spec, now)
    gone = not task.machine and task.status is not TaskStatus.WAITING
    return _stopped(index) if index.step is IndexStep.STOPPING and gone else index


def given_up(index: IndexState, error: str, now: datetime) -> IndexState:
    """The index as failed, at any step before it is decided."""
    if index.step is IndexStep.DONE or index.succeeded is not None:
        return index
    failed = replace(index, succeeded=False, result=ErrorResult(error).to_json(), since="", reason="")
    return replace(failed, step=IndexStep.DONE) if index.step is IndexStep.QUEUED else _stopping(failed, now)


def was_refused(index: IndexState) -> bool:
    """Whether it was given up before an attempt ended: no machine can be rented."""
    return index.succeeded is False and index.failures == 0


def next_attempts(indexes: Mapping[int, IndexState], parallelism: int, now: datetime) -> list[int]:
    """Indexes that start now: the lowest first, `parallelism` at a time, stopping ones included."""
    limit = parallelism - sum(index.has_task for index in indexes.values())
    ready = [
        number
        for number, index in sorted(indexes.items())
        if index.step is IndexStep.QUEUED and not (index.retry_at and now < datetime.fromisoformat(index.retry_at))
    ]
    return ready[: max(0, limit)]


def status(job: Mapping[str, Any], indexes: Mapping[int, IndexState]) -> dict[str, Any]:
    """The status of a batch/v1 Job with these indexes."""
    succeeded = {number for number, index in indexes.items() if index.succeeded}
    failed = {number for number, index in indexes.items() if index.succeeded is False}
    status = {
        **job.get("status", {}),
        "active": sum(index.step in (IndexStep.STARTING, IndexStep.RUNNING) for index in indexes.values()),
        "completedIndexes": format_indexes(succeeded),
        "failedIndexes": format_indexes(failed),
    }
    # Only after the last machine is gone: the controller may stop as soon as the Job has ended.
    complete = len(indexes) == job["spec"]["completions"]  # other backends may have the other indexes
    if complete and all(index.step is IndexStep.DONE for index in indexes.values()):
        status |= conditions.end_status(failed, max((index.ended for index in indexes.values()), default=""))
    return status


def waiting(indexes: Mapping[int, IndexState]) -> dict[str, int]:
    """Reasons why indexes have no machine, and the number of indexes for each."""
    return dict(Counter(index.reason for index in indexes.values() if index.since and index.reason).most_common())


def waiting_since(indexes: Mapping[int, IndexState]) -> str:
    """The time since which some indexes need a machine and none has one; empty otherwise."""
    times = [index.since for index in indexes.values() if index.since]
    if not times or any(index.step is IndexStep.RUNNING for index in indexes.values()):
        return ""
    return max([min(times), *(index.ended for index in indexes.values())])


def machine_hours(indexes: Mapping[int, IndexState], now: datetime) -> float:
    """Machine time of all attempts that have started."""
    seconds = 0.0
    for index in indexes.values():
        seconds += index.seconds + (_seconds(index, now) if index.step is IndexStep.RUNNING else 0.0)
    return seconds / 3600


def script(run: str) -> str:
    """A shell script that runs `run` and writes its exit code and termination message to the log: SkyPilot keeps the
    log only."""
    return (
        'export IMGSEARCH_LOG_RESULT_FILE="$(mktemp)"\n'
        f"echo {BEGIN_MARK}\n(\n{run.strip()}\n)\ncode=$?\n"
        # On a new line, also after a program that was killed in the middle of one.
        f'printf "\\n{RESULT_MARK} %s %s\\n" "$code" "$(cat "$IMGSEARCH_LOG_RESULT_FILE")"\n'
        'exit "$code"\n'
    )


def parse_exit(log: str) -> Exit | None:
    """The exit in the log of a task; None where it has none."""
    last = max(RESULT.finditer(log), key=re.Match.start, default=None)
    if last is None:
        return None
    try:
        result = json.loads(last[2])
    except ValueError:
        result = None
    printed = log[: last.start()].rpartition(f"{BEGIN_MARK}\n")[2].removesuffix("\n")
    return Exit(int(last[1]), result if isinstance(result, dict) else None, printed)


def _observed(
    index: IndexState, task: TaskState, exit: Exit | None, spec: Mapping[str, Any], now: datetime
) -> IndexState:
    match task.status:
        case TaskStatus.WAITING:
            return replace(index, step=IndexStep.STARTING, since=index.since or _text(now), reason=task.reason)
        case TaskStatus.RUNNING:
            return replace(index, step=IndexStep.RUNNING, since="", reason="", started=index.started or _text(now))
        case TaskStatus.ENDED:
            return _exited(index, exit, spec, now)
        case TaskStatus.GONE:
            return _stopping(index, now)
        case TaskStatus.UNAVAILABLE:
            return _stopping(replace(index, reason=task.reason, retry_at=_text(now + RETRY_DELAY)), now)
        case TaskStatus.REFUSED:
            return given_up(index, task.reason, now)


def _exited(index: IndexState, exit: Exit | None, spec: Mapping[str, Any], now: datetime) -> IndexState:
    # It may have started and ended between two observations.
    ran = replace(index, started=index.started or _text(now), since="", reason="", result=_result(exit))
    if exit is not None and exit.code == ExitCode.DONE:
        return _stopping(replace(ran, succeeded=True), now)
    ran = replace(ran, failures=index.failures + 1)
    final = ran.failures > spec["backoffLimitPerIndex"] or (exit is not None and exit.code in final_codes(spec))
    return _stopping(replace(ran, succeeded=False if final else None), now)


def _result(exit: Exit | None) -> Mapping[str, Any]:
    if exit is None:
        return ErrorResult(UNKNOWN_ERROR).to_json()
    if exit.result is not None:
        return exit.result
    if exit.code == ExitCode.DONE:
        return {}
    reason = "killed: probably out of memory" if exit.code == KILLED else f"exited with code {exit.code}"
    return ErrorResult(f"{reason}; see its log").to_json()


def _stopping(index: IndexState, now: datetime) -> IndexState:
    used = _seconds(index, now) if index.started else 0.0
    ended = _text(now) if index.started or index.succeeded is not None else index.ended
    return replace(index, step=IndexStep.STOPPING, started="", ended=ended, seconds=index.seconds + used)


def _stopped(index: IndexState) -> IndexState:
    return replace(index, step=IndexStep.QUEUED if index.succeeded is None else IndexStep.DONE)


def _seconds(index: IndexState, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(index.started)).total_seconds())


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
