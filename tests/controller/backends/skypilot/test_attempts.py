from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.backends.skypilot import attempts
from controller.backends.skypilot.attempts import (
    RETRY_DELAY,
    Exit,
    IndexState,
    IndexStep,
    TaskState,
    TaskStatus,
    advanced,
    next_attempts,
    parse_exit,
    script,
    submitted,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)
SPEC: dict[str, Any] = {
    "backoffLimitPerIndex": 1,
    "podFailurePolicy": {"rules": [{"action": "Ignore"}, {"action": "FailIndex", "onExitCodes": {"values": [2, 4]}}]},
}
RUNNING = TaskState(TaskStatus.RUNNING, machine=True)
ENDED = TaskState(TaskStatus.ENDED, machine=True)
GONE = TaskState(TaskStatus.GONE)


def running_index() -> IndexState:
    return advanced(submitted(IndexState(), NOW), RUNNING, None, SPEC, NOW)


def after_exit(code: int | None, failures: int = 0) -> IndexState:
    task_exit = None if code is None else Exit(code, {"error": "why"} if code else {"images": 1}, "")
    return advanced(IndexState(step=IndexStep.RUNNING, failures=failures), ENDED, task_exit, SPEC, NOW)


@pytest.mark.parametrize(
    ("code", "failures", "succeeded"),
    [
        (0, 0, True),
        (0, 1, True),
        (3, 0, None),
        (3, 1, False),
        (None, 0, None),
        (None, 1, False),
        (2, 0, False),
        (4, 0, False),
        (137, 0, None),
    ],
)
def test_an_exit_code_says_what_becomes_of_an_index(code: int | None, failures: int, succeeded: bool | None) -> None:
    index = after_exit(code, failures)
    assert (index.step, index.succeeded) == (IndexStep.STOPPING, succeeded), "its machine is given back first"
    next_index = advanced(index, GONE, None, SPEC, LATER)
    assert next_index.step is (IndexStep.QUEUED if succeeded is None else IndexStep.DONE)


@pytest.mark.parametrize(
    "state",
    [
        ENDED,
        TaskState(TaskStatus.WAITING, machine=True),
        TaskState(TaskStatus.WAITING),
        TaskState(TaskStatus.GONE, "", True),
    ],
)
def test_as_long_as_its_machine_is_there_no_other_is_asked_for(state: TaskState) -> None:
    assert advanced(after_exit(3), state, None, SPEC, LATER).step is IndexStep.STOPPING


def test_a_machine_that_is_taken_away_is_no_failure() -> None:
    index = advanced(running_index(), GONE, None, SPEC, LATER)
    assert (index.step, index.failures, index.succeeded) == (IndexStep.QUEUED, 0, None)
    assert index.seconds == 60


def test_where_no_place_has_a_machine_it_is_asked_for_again_after_a_while() -> None:
    index = advanced(submitted(IndexState(), NOW), TaskState(TaskStatus.UNAVAILABLE, "full"), None, SPEC, NOW)
    assert (index.step, index.reason) == (IndexStep.QUEUED, "full")
    assert next_attempts({0: index}, 1, NOW) == []
    assert next_attempts({0: index}, 1, NOW + RETRY_DELAY) == [0]
    assert submitted(index, LATER).since == NOW.isoformat(), "it has waited all the time"


def test_the_lowest_indexes_come_first_and_one_that_leaves_holds_its_place() -> None:
    indexes = {
        2: IndexState(),
        1: IndexState(),
        0: IndexState(step=IndexStep.STOPPING),
        3: IndexState(step=IndexStep.DONE),
    }
    assert next_attempts(indexes, 2, NOW) == [1]
    assert next_attempts(indexes, 1, NOW) == []


def test_a_job_waits_only_while_none_of_its_indexes_has_a_machine() -> None:
    waiting_index = submitted(IndexState(), NOW)
    assert attempts.waiting_since({0: waiting_index, 1: submitted(IndexState(), LATER)}) == NOW.isoformat()
    assert attempts.waiting_since({0: waiting_index, 1: running_index()}) == ""
    ended_index = IndexState(step=IndexStep.DONE, succeeded=True, ended=LATER.isoformat())
    assert attempts.waiting_since({0: waiting_index, 1: ended_index}) == LATER.isoformat()
    assert attempts.waiting_since({0: IndexState()}) == ""


def test_an_index_survives_being_written_down() -> None:
    index = after_exit(3)
    assert IndexState.from_json(json.loads(json.dumps(index.to_json())), "index 0") == index
    assert index.to_json().keys() >= {"step", "why", "again"}, "the files of earlier versions have these names"


def test_a_job_is_over_when_its_last_machine_is_gone() -> None:
    job: dict[str, Any] = {"spec": {"completions": 2}, "status": {"startTime": "then"}}
    assert "conditions" not in attempts.status(
        job, {0: after_exit(0), 1: IndexState(step=IndexStep.DONE, succeeded=False)}
    )
    status = attempts.status(
        job, {0: advanced(after_exit(0), GONE, None, SPEC, LATER), 1: IndexState(step=IndexStep.DONE, succeeded=False)}
    )
    assert status["conditions"][0]["type"] == "Failed"
    assert (status["completedIndexes"], status["failedIndexes"], status["startTime"]) == ("0", "1", "then")


def test_a_job_is_not_over_while_indexes_of_it_are_somebody_elses() -> None:
    indexes = {1: IndexState(step=IndexStep.DONE, succeeded=True)}
    assert "conditions" not in attempts.status({"spec": {"completions": 2}}, indexes)
    assert "conditions" in attempts.status({"spec": {"completions": 1}}, indexes)


@pytest.mark.parametrize(
    ("run", "code", "result", "text"),
    [
        ("echo a; echo '{\"images\": 3}' > $IMGSEARCH_LOG_RESULT_FILE", 0, {"images": 3}, "a\n"),
        ("printf b; exit 3", 3, None, "b"),
        ("false", 1, None, ""),
        ("set -e; false; echo never", 1, None, ""),
        ("sh -c 'kill -9 $$'", 137, None, ""),
        (f"echo {attempts.RESULT_MARK} 0; exit 4", 4, None, f"{attempts.RESULT_MARK} 0\n"),
    ],
)
def test_the_log_of_a_task_says_how_it_ended(run: str, code: int, result: Any, text: str) -> None:
    completed = subprocess.run(["bash", "-c", script(run)], capture_output=True, text=True)
    assert completed.returncode == code
    end = parse_exit(f"Debian\n{completed.stdout}")
    assert end == Exit(code, result, text)


def test_a_log_without_an_end_has_none() -> None:
    assert parse_exit(f"{attempts.BEGIN_MARK}\nhello\n") is None
