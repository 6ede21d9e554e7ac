from __future__ import annotations

from typing import Any

import pytest

from controller.jobs import IndexReport, Phase, Stage, format_indexes, job_state, parse_indexes
from imgsearch import labels


def job(status: dict[str, Any], completions: int = 4) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "local-r1-embed",
            "labels": {labels.COMPONENT: "embed"},
            "annotations": {labels.SPEC_HASH: "abc"},
        },
        "spec": {"completions": completions, "parallelism": 2},
        "status": status,
    }


def condition(type: str, status: str = "True", **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": type, "status": status, **more}]}


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({}, Phase.ACTIVE),
        ({"active": 2}, Phase.ACTIVE),
        ({"succeeded": 4, "active": 0}, Phase.ACTIVE),  # counts do not decide
        (condition("Complete"), Phase.COMPLETE),
        (condition("Complete", "False"), Phase.ACTIVE),
        (condition("SuccessCriteriaMet"), Phase.ACTIVE),
        (condition("Failed"), Phase.FAILED),
        (condition("FailureTarget"), Phase.ACTIVE),
        (condition("Suspended"), Phase.SUSPENDED),
        (condition("Suspended", "False"), Phase.ACTIVE),
    ],
)
def test_conditions_decide_where_a_job_stands(status: dict[str, Any], phase: Phase) -> None:
    assert job_state(job(status), {}).phase is phase


def test_a_failed_job_has_a_reason_and_the_sentence_of_each_failed_index() -> None:
    status = {"failedIndexes": "1,3", "completedIndexes": "0,2", **condition("Failed", message="2 indexes failed")}
    state = job_state(job(status), {1: IndexReport({"error": "no such model"})})
    assert state.reason == "2 indexes failed"
    assert state.succeeded == {0, 2}
    assert state.errors() == {1: "no such model", 3: "it ended without a word; its log may tell"}


def test_images_are_those_of_finished_indexes_and_what_running_ones_report() -> None:
    reports = {
        0: IndexReport({"images": 90, "bad": 10}, done=95, total=100),
        1: IndexReport(None, done=40, total=100),
        2: IndexReport({"error": "killed"}, done=7, total=100),
    }
    state = job_state(job({"completedIndexes": "0"}), reports)
    assert state.images_done == 147
    assert state.images_bad == 10
    assert state.stage is Stage.EMBED


@pytest.mark.parametrize("text", ["", "0", "0-2", "0-2,5", "1,3,5-7"])
def test_completion_indexes_are_read_and_written_as_kubernetes_does(text: str) -> None:
    assert format_indexes(set(parse_indexes(text))) == text


def test_ranges_are_whole() -> None:
    assert list(parse_indexes("0-2,5")) == [0, 1, 2, 5]
