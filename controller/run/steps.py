"""Decides the next step of a run from the state of its Jobs. Pure: no I/O, no clock."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from controller.jobs.state import JobState, Phase, Stage, planned
from imgsearch.settings import RunSettings


@dataclass(frozen=True)
class Create:
    """Create the Job of `stage`."""

    stage: Stage
    completions: int = 1


@dataclass(frozen=True)
class Replace:
    """Delete the Jobs of this stage and of the later ones, and create this stage's Job again. Finished shards are not
    embedded again."""

    stage: Stage
    completions: int = 1


@dataclass(frozen=True)
class Wait:
    """Wait for the Job of `stage`, which is running."""

    stage: Stage


@dataclass(frozen=True)
class Finished:
    """The run is finished. `changed` is False where an update found no change."""

    changed: bool = True


@dataclass(frozen=True)
class Failed:
    """A stage has failed, and its pods have ended."""

    stage: Stage
    reason: str


Step = Create | Replace | Wait | Finished | Failed


def next_step(jobs: Mapping[Stage, JobState], *, retry: bool, outdated: Collection[Stage] = ()) -> Step:
    """The next step of a run. With `retry`, failed Jobs come from an earlier command and are tried again. `outdated`:
    stages whose Jobs have not begun, and which have other pods than this command would create."""
    stages = _stages(jobs)
    for position, stage in enumerate(stages):
        job = jobs.get(stage)
        if job is None:
            if stage is Stage.EMBED and planned(jobs) is None:
                # The pod of the plan was lost with its node before its result was read. To run the plan again is cheap,
                # because it finds its plan.json.
                return Replace(Stage.PLAN)
            failed_before = retry and any(_has_failed(jobs.get(later)) for later in stages[position:])
            return (Replace if failed_before else Create)(stage, _completions(stage, jobs))
        if retry and (job.phase is Phase.FAILED or (stage is Stage.EMBED and _has_failed(jobs.get(Stage.INGEST)))):
            # Somebody may have deleted a damaged part since an ingest failed. The embed Job creates it again.
            return Replace(stage, _completions(stage, jobs))
        if job.phase is Phase.FAILED:
            return Failed(stage, _reason(job))
        if job.phase is not Phase.COMPLETE:
            return Replace(stage, job.completions) if stage in outdated and not job.begun else Wait(stage)
    return Finished(changed=Stage.INGEST in stages)


def over(jobs: Mapping[Stage, JobState]) -> bool:
    """Whether a run has finished or failed. A run between two stages has not."""
    return isinstance(next_step(jobs, retry=False), Finished | Failed)


def _stages(jobs: Mapping[Stage, JobState]) -> list[Stage]:
    """The stages of this run. An update without new images has no embed stage. Without removed images as well, it has
    nothing to publish."""
    plan = planned(jobs)
    if plan is None or plan.shards or jobs[Stage.PLAN].phase is not Phase.COMPLETE:
        return list(Stage)
    return [Stage.PLAN, Stage.INGEST] if plan.removed else [Stage.PLAN]


def _has_failed(job: JobState | None) -> bool:
    return job is not None and job.phase is Phase.FAILED


def _completions(stage: Stage, jobs: Mapping[Stage, JobState]) -> int:
    plan = planned(jobs)
    return plan.shards if plan and stage is Stage.EMBED else 1


def _reason(job: JobState) -> str:
    errors = job.errors()
    if not errors:
        return job.reason
    if job.completions == 1:
        return errors[0]
    index, first = next(iter(errors.items()))
    return f"{len(errors)} of {job.completions} shards failed; shard {index}: {first}"


def run_id(settings: RunSettings) -> str:
    """The default id of a run: a hash of source, model and options, so that the same command finds the same run."""
    options = {name: value for name, value in dataclasses.asdict(settings).items() if name != "id"}
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:10]
