"""One run from start to end: observe its Jobs, decide, act, wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from controller.jobs import manifests
from controller.jobs.manifests import Placement
from controller.jobs.results import Answer
from controller.jobs.state import JobState, Phase, Stage
from controller.run.capacity import Capacity
from controller.run.steps import Create, Failed, Finished, Replace, Wait, next_step
from imgsearch import labels
from imgsearch.errors import PermanentError
from imgsearch.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class Cluster(Protocol):
    """What runs Jobs: a Kubernetes, or processes on this machine."""

    def template(self, stage: Stage) -> Mapping[str, Any]:
        """The core/v1 PodTemplateSpec of a stage's pods."""

    def jobs(self, run: str) -> dict[Stage, JobState]:
        """The Jobs of a run that exist, as they stand now."""

    def create(self, job: Mapping[str, Any]) -> None:
        """Creates a Job. One of the same name and spec hash is taken as this one; PermanentError for another."""

    def delete(self, name: str) -> None:
        """Removes a Job with its pods and waits until they have ended; one that is not there is no error."""

    def check(self, job: Mapping[str, Any]) -> None:
        """Raises UsageError where the cluster would refuse this Job; nothing is made."""

    def widen(self, job: JobState, parallelism: int) -> None:
        """Lets a Job at work have more pods at a time."""

    def wait(self, seconds: float) -> None:
        """Returns when a Job may have changed, after `seconds` at the latest."""

    def tell(self, job: JobState, reason: str, sentence: str, *, warning: bool) -> None:
        """Leaves word at a Job for whoever looks at it later."""

    def runs(self) -> list[str]:
        """Runs that have a Job, the latest last."""

    def call(self, program: str, verb: str, settings: Settings) -> Answer:
        """Runs a short program to its end where the data are; raises what it says went wrong."""

    def log(self, run: str, stage: Stage, index: int) -> str:
        """What one index of a stage has logged; raises UsageError where that is gone."""

    def parallelism(self) -> int:
        """How many shards are best embedded at a time."""

    def troubles(self) -> list[str]:
        """What is wrong with the place itself, a sentence each."""

    def stop(self) -> None:
        """Lets go of what this object holds. Local processes end; a cluster's Jobs go on."""


class Pipeline:
    """Drives one run. A second controller on the same run does no harm: names are computed, creation is idempotent."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        *,
        release: str,
        capacity: Capacity,
        placement: Placement | None = None,
        show: Callable[[Mapping[Stage, JobState]], None],
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._release = release
        self._capacity = capacity
        self._placement = placement
        self._show = show

    def manifest(self, stage: Stage, completions: int) -> dict[str, Any]:
        """The Job as it is sent."""
        return manifests.job(
            stage,
            self._settings,
            self._cluster.template(stage),
            release=self._release,
            completions=completions,
            parallelism=self._capacity.parallelism,
            placement=self._placement,
        )

    def run(self) -> tuple[Finished | Failed, Mapping[Stage, JobState]]:
        """Runs what is left of the run; returns how it ended and its Jobs."""
        retry = True
        created = False
        self._check(self._cluster.jobs(self._settings.run.id))
        while True:
            jobs = self._cluster.jobs(self._settings.run.id)
            self._show(jobs)
            step = next_step(jobs, retry=retry)
            match step:
                case Create(stage, completions):
                    self._cluster.create(self.manifest(stage, completions))
                    retry, created = False, True
                case Replace(stage, completions):
                    for later in list(Stage)[list(Stage).index(stage) :]:
                        self._cluster.delete(manifests.job_name(self._release, self._settings.run.id, later))
                    self._cluster.create(self.manifest(stage, completions))
                    retry, created = False, True
                case Wait(stage):
                    if reason := self._capacity.given_up(jobs[stage]):
                        # Its pods would wake an autoscaler later, when nobody waits for them any more.
                        self._cluster.tell(jobs[stage], "NoCapacity", reason, warning=True)
                        self._cluster.delete(jobs[stage].name)
                        return Failed(stage, reason), jobs
                    if wider := self._capacity.wider(jobs[stage]):
                        self._cluster.widen(jobs[stage], wider)
                    self._cluster.wait(POLL_SECONDS)
                case Finished(changed=False):
                    # No run came of it, and the next update shall look again.
                    self._cluster.delete(jobs[Stage.PLAN].name)
                    return step, jobs
                case Failed(stage, reason):
                    self._cluster.tell(jobs[stage], "RunFailed", reason, warning=True)
                    return step, jobs
                case Finished():
                    if created:
                        self._cluster.tell(jobs[Stage.INGEST], "RunPublished", _published(jobs), warning=False)
                    return step, jobs

    def _check(self, jobs: Mapping[Stage, JobState]) -> None:
        """Raises PermanentError where a Job of this run was made with other options. What failed may be corrected."""
        for stage, job in jobs.items():
            ours = self.manifest(stage, job.completions)["metadata"]["annotations"][labels.SPEC_HASH]
            if job.phase is not Phase.FAILED and job.spec_hash != ours:
                raise PermanentError(
                    f"run {self._settings.run.id} exists with other options (Job {job.name} has spec {job.spec_hash}, "
                    f"this command {ours}): give the same options as before, or another --run"
                )


def _published(jobs: Mapping[Stage, JobState]) -> str:
    result = jobs[Stage.INGEST].result
    return f"index {result.get('index')}: {result.get('images')} images searchable, {result.get('bad')} bad"
