from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.jobs.results import IndexReport
from controller.jobs.state import JobState, Phase, Stage
from controller.run.steps import Create, Failed, Finished, Replace, Step, Wait, next_step, over, run_id
from imgsearch.errors import PermanentError
from imgsearch.settings import RunSettings
from tests.controller import states


def job(
    stage: Stage, phase: Phase = Phase.COMPLETE, result: Mapping[str, Any] | None = None, **fields: Any
) -> JobState:
    return states.job(stage, phase, **{"indexes": {0: IndexReport(result)} if result else {}, **fields})


PLAN = job(Stage.PLAN, result={"shards": 3, "images": 30, "removed": 0})
EMBED = job(Stage.EMBED, completions=3)
INGEST = job(Stage.INGEST)
NOTHING_NEW = job(Stage.PLAN, result={"shards": 0, "images": 0, "kept": 30, "removed": 0})
ONLY_REMOVED = job(Stage.PLAN, result={"shards": 0, "images": 0, "kept": 28, "removed": 2})


def active(state: JobState) -> JobState:
    return replace(state, phase=Phase.ACTIVE)


def failed_job(state: JobState, reason: str = "it broke") -> JobState:
    return replace(state, phase=Phase.FAILED, reason=reason)


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize(
    ("jobs", "step"),
    [
        ([], Create(Stage.PLAN)),
        ([active(PLAN)], Wait(Stage.PLAN)),
        ([PLAN], Create(Stage.EMBED, completions=3)),
        ([PLAN, active(EMBED)], Wait(Stage.EMBED)),
        ([PLAN, replace(EMBED, phase=Phase.SUSPENDED)], Wait(Stage.EMBED)),
        ([PLAN, EMBED], Create(Stage.INGEST)),
        ([PLAN, EMBED, active(INGEST)], Wait(Stage.INGEST)),
        ([PLAN, EMBED, INGEST], Finished()),
        ([NOTHING_NEW], Finished(changed=False)),
        ([ONLY_REMOVED], Create(Stage.INGEST)),
        ([ONLY_REMOVED, active(INGEST)], Wait(Stage.INGEST)),
        ([ONLY_REMOVED, INGEST], Finished()),
    ],
)
def test_a_run_goes_through_its_stages(jobs: list[JobState], step: Step, retry: bool) -> None:
    assert next_step({state.stage: state for state in jobs}, retry=retry) == step


def test_a_job_that_has_not_begun_is_replaced_where_its_pods_would_be_others() -> None:
    jobs = {state.stage: state for state in (PLAN, replace(active(EMBED), begun=False))}
    assert next_step(jobs, retry=True, outdated={Stage.EMBED}) == Replace(Stage.EMBED, completions=3)
    assert next_step(jobs, retry=True, outdated={Stage.PLAN}) == Wait(Stage.EMBED)
    jobs[Stage.EMBED] = active(EMBED)  # a pod has started meanwhile
    assert next_step(jobs, retry=True, outdated={Stage.EMBED}) == Wait(Stage.EMBED)


def test_a_plan_whose_result_names_no_shards_is_no_finished_run() -> None:
    with pytest.raises(PermanentError, match=r"the result of Job team-r1-plan is damaged .*field shards: "):
        next_step({Stage.PLAN: job(Stage.PLAN, result={"log": "killed"})}, retry=False)


@pytest.mark.parametrize(
    ("jobs", "step"),
    [
        ([failed_job(PLAN)], Replace(Stage.PLAN)),
        ([PLAN, failed_job(EMBED)], Replace(Stage.EMBED, completions=3)),
        ([PLAN, EMBED, failed_job(INGEST)], Replace(Stage.EMBED, completions=3)),
        ([ONLY_REMOVED, failed_job(INGEST)], Replace(Stage.INGEST)),
    ],
)
def test_what_failed_in_an_earlier_command_is_tried_again(jobs: list[JobState], step: Step) -> None:
    assert next_step({state.stage: state for state in jobs}, retry=True) == step


LOST = job(Stage.PLAN)


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize(
    ("jobs", "step"),
    [
        ([LOST], Replace(Stage.PLAN)),
        ([LOST, active(EMBED)], Wait(Stage.EMBED)),
        ([LOST, EMBED], Create(Stage.INGEST)),
        ([LOST, EMBED, INGEST], Finished()),
        ([LOST, INGEST], Replace(Stage.PLAN)),
    ],
)
def test_a_plan_whose_result_is_lost_is_made_again_where_it_is_needed(
    jobs: list[JobState], step: Step, retry: bool
) -> None:
    assert next_step({state.stage: state for state in jobs}, retry=retry) == step


@pytest.mark.parametrize(
    ("jobs", "step"),
    [
        ([failed_job(EMBED)], Replace(Stage.PLAN)),
        ([EMBED, failed_job(INGEST)], Replace(Stage.PLAN)),
        ([PLAN, failed_job(INGEST)], Replace(Stage.EMBED, completions=3)),
        ([EMBED, INGEST], Create(Stage.PLAN)),
    ],
)
def test_what_failed_before_is_not_met_again_where_an_earlier_job_is_gone(jobs: list[JobState], step: Step) -> None:
    assert next_step({state.stage: state for state in jobs}, retry=True) == step


@pytest.mark.parametrize(
    ("jobs", "is_over"),
    [
        ([], False),
        ([active(PLAN)], False),
        ([PLAN], False),
        ([PLAN, replace(EMBED, phase=Phase.SUSPENDED)], False),
        ([PLAN, EMBED], False),
        ([PLAN, EMBED, active(INGEST)], False),
        ([PLAN, EMBED, INGEST], True),
        ([PLAN, failed_job(EMBED)], True),
        ([NOTHING_NEW], True),
        ([LOST], False),
    ],
)
def test_a_run_is_over_when_nothing_is_left_to_do_or_a_stage_has_failed(jobs: list[JobState], is_over: bool) -> None:
    assert over({state.stage: state for state in jobs}) is is_over


def test_what_fails_now_fails_the_run_with_its_reason() -> None:
    failed_embedding = replace(
        failed_job(EMBED),
        failed=frozenset({1, 2}),
        indexes={1: IndexReport({"error": "no space left"}), 2: IndexReport()},
    )
    outcome = next_step({Stage.PLAN: PLAN, Stage.EMBED: failed_embedding}, retry=False)
    assert outcome == Failed(Stage.EMBED, "2 of 3 shards failed; shard 1: no space left")


def test_a_failure_without_a_failed_index_has_the_jobs_own_reason() -> None:
    assert next_step({Stage.PLAN: failed_job(PLAN, "interrupted")}, retry=False) == Failed(Stage.PLAN, "interrupted")


def test_the_same_command_is_the_same_run_and_another_is_another() -> None:
    settings = RunSettings(index="photos", source="/photos", model="a/b")
    assert run_id(settings) == run_id(replace(settings, id="x"))
    changed = [
        replace(settings, source="/other"),
        replace(settings, model="c/d"),
        replace(settings, index="other"),
        replace(settings, shard_images=7),
        replace(settings, base="r1"),
    ]
    assert len({run_id(variant) for variant in [settings, *changed]}) == 6
