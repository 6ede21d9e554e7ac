"""From what is observed of a run's Jobs to what to do next. Pure: no I/O, no clock."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
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
    """Delete this stage's Job and the later ones, and create it again: its finished shards cost nothing."""

    stage: Stage
    completions: int = 1


@dataclass(frozen=True)
class Wait:
    """A Job is at work."""

    stage: Stage


@dataclass(frozen=True)
class Finished:
    """Everything is done. `changed` is False where an update found nothing new."""

    changed: bool = True


@dataclass(frozen=True)
class Failed:
    """A stage has failed, and what it left running has ended."""

    stage: Stage
    reason: str


Step = Create | Replace | Wait | Finished | Failed


def next_step(jobs: Mapping[Stage, JobState], *, retry: bool) -> Step:
    """What a run needs now. `retry`: a failed Job is from an earlier command, so it is tried again."""
    stages = _stages(jobs)
    for position, stage in enumerate(stages):
        job = jobs.get(stage)
        if job is None:
            if stage is Stage.EMBED and planned(jobs) is None:
                # Its pod went with its node before anyone had read what it said. To ask again is cheap: plan.json is
                # written once, and then only read.
                return Replace(Stage.PLAN)
            old = retry and any(_has_failed(jobs.get(later)) for later in stages[position:])
            return (Replace if old else Create)(stage, _completions(stage, jobs))
        if retry and (job.phase is Phase.FAILED or (stage is Stage.EMBED and _has_failed(jobs.get(Stage.INGEST)))):
            # An ingest may have failed for what a person has since removed from a shard: embed looks again.
            return Replace(stage, _completions(stage, jobs))
        if job.phase is Phase.FAILED:
            return Failed(stage, _reason(job))
        if job.phase is not Phase.COMPLETE:
            return Wait(stage)
    return Finished(changed=Stage.INGEST in stages)


def over(jobs: Mapping[Stage, JobState]) -> bool:
    """Whether a run has ended, well or not; one between two stages has not."""
    return isinstance(next_step(jobs, retry=False), Finished | Failed)


def _stages(jobs: Mapping[Stage, JobState]) -> list[Stage]:
    """The stages of this run: an update that found nothing new embeds nothing, and one that also found nothing gone
    has nothing to publish."""
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
    """The id of a run that was given none: a hash of source, model and options, so that the same command finds the
    same run."""
    told = {name: value for name, value in dataclasses.asdict(settings).items() if name != "id"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]
