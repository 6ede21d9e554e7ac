from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.jobs.annotations import JobProgress, Overflow
from controller.jobs.results import UNKNOWN_ERROR, IndexReport
from controller.jobs.state import Phase, Stage, job_state, with_plan
from controller.jobs.usage import Gpu
from imgsearch import labels
from tests.controller import states
from tests.controller.jobs.job_objects import job


def condition(type: str, status: str = "True", **fields: str) -> dict[str, Any]:
    return {"conditions": [{"type": type, "status": status, **fields}]}


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
    assert state.errors() == {1: "no such model", 3: UNKNOWN_ERROR}


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


def job_with_overflow(status: dict[str, Any], overflow: Overflow) -> dict[str, Any]:
    """A Job of four that says this of machines elsewhere."""
    manifest = job(status)
    manifest["metadata"]["annotations"][labels.OVERFLOW] = json.dumps(overflow.to_json())
    return manifest


OVERFLOW = Overflow(
    succeeded=frozenset({2, 3}),
    images=40,
    bad=4,
    superseded=frozenset({0}),
    gpu_hours={Gpu("L4", True): 2.0},
    finished="then",
)


@pytest.mark.parametrize(
    ("status", "failed", "phase"),
    [
        ({"completedIndexes": "0"}, {}, Phase.ACTIVE),
        ({"completedIndexes": "0,1"}, {}, Phase.COMPLETE),
        ({"completedIndexes": "0,1", **condition("Suspended")}, {}, Phase.COMPLETE),
        ({"completedIndexes": "0", **condition("Suspended")}, {}, Phase.SUSPENDED),
        ({"completedIndexes": "0", "failedIndexes": "1"}, {}, Phase.FAILED),
        ({"completedIndexes": "0"}, {1: "broken"}, Phase.FAILED),
        ({"completedIndexes": "0,1", "failedIndexes": "2"}, {1: "broken"}, Phase.COMPLETE),
        ({"completedIndexes": "0-3"}, {}, Phase.ACTIVE),  # Kubernetes is about to say it itself
        ({"completedIndexes": "0", **condition("Failed", message="too late")}, {}, Phase.FAILED),
        (condition("Complete"), {1: "broken"}, Phase.COMPLETE),
    ],
)
def test_what_pods_and_other_machines_have_done_together_decides(
    status: dict[str, Any], failed: dict[int, str], phase: Phase
) -> None:
    assert job_state(job_with_overflow(status, replace(OVERFLOW, failed=failed)), {}).phase is phase


def test_who_fails_elsewhere_has_its_sentence_and_the_job_its_reason() -> None:
    state = job_state(job_with_overflow({"completedIndexes": "0"}, replace(OVERFLOW, failed={1: "broken"})), {})
    assert (state.reason, state.errors(), state.finished) == ("indexes 1 failed", {1: "broken"}, "then")


def test_what_was_done_elsewhere_counts_once_and_in_no_record_of_the_pods() -> None:
    manifest = job_with_overflow({"completedIndexes": "0-2"}, OVERFLOW)
    pods = {0: IndexReport({"images": 10, "bad": 1}), 2: IndexReport({"images": 16, "bad": 4}), 3: IndexReport(done=7)}
    with_pods = job_state(manifest, pods, gpu_hours={Gpu("T4", False): 1.0})
    manifest["metadata"]["annotations"][labels.RECORD] = json.dumps(with_pods.to_record().to_json())
    for state in (with_pods, job_state(manifest, {})):
        assert (state.images_done, state.images_bad) == (51, 5)
        assert state.usage.by_gpu == {Gpu("T4", False): 1.0, Gpu("L4", True): 2.0}


PLAN = states.job(Stage.PLAN, indexes={0: IndexReport({"shards": 4, "images": 42})})


@pytest.mark.parametrize(
    ("status", "images"),
    [
        ({"completedIndexes": "0-2"}, 11 + 2 * 42 // 4 + 3),
        ({"completedIndexes": "0-3", **condition("Complete")}, 42),
        ({"completedIndexes": "0"}, 11 + 7 + 3),
    ],
)
def test_shards_whose_results_are_lost_count_as_planned(status: dict[str, Any], images: int) -> None:
    reports = {0: IndexReport({"images": 10, "bad": 1}), 1: IndexReport(done=7), 3: IndexReport(done=3)}
    jobs = with_plan({Stage.PLAN: PLAN, Stage.EMBED: job_state(job(status), reports)})
    assert jobs[Stage.EMBED].images_done == images
    assert with_plan({Stage.PLAN: PLAN}) == {Stage.PLAN: PLAN}


def test_the_progress_that_a_controller_has_written_is_the_least() -> None:
    manifest = job({})
    manifest["metadata"]["annotations"][labels.PROGRESS] = json.dumps(JobProgress(30, 2).to_json())
    for done, images in ((0, 30), (29, 30), (31, 31)):
        state = job_state(manifest, {0: IndexReport(done=done)})
        assert (state.images_done, state.images_bad) == (images, 2)


def test_who_waits_is_undecided() -> None:
    state = job_state(job_with_overflow({"completedIndexes": "0"}, OVERFLOW), {}, waits=dict.fromkeys(range(4), "then"))
    assert state.waits == {1: "then"}
