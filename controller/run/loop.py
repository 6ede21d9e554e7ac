"""One run from start to end: observe its Jobs, decide, act, wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.backends import EventRecorder, JobBackend, Scaler
from controller.jobs import manifests
from controller.jobs.manifests import Placement
from controller.jobs.state import JobState, Phase, Stage, ingested, planned
from controller.run import store_memory
from controller.run.capacity import Capacity
from controller.run.steps import Create, Failed, Finished, Replace, Wait, next_step
from imgsearch import labels
from imgsearch.errors import PermanentError
from imgsearch.settings import Settings

POLL_SECONDS = 1.0


class Pipeline:
    """Drives one run. A second controller on the same run does no harm, because names are computed and creation is
    idempotent."""

    def __init__(
        self,
        backend: JobBackend,
        settings: Settings,
        *,
        release: str,
        capacity: Capacity,
        placement: Placement | None = None,
        show: Callable[[Mapping[Stage, JobState]], None],
        warn: Callable[[str], None] = lambda _: None,
        scaler: Scaler | None = None,
        events: EventRecorder | None = None,
    ) -> None:
        """`scaler` None: a running Job keeps its number of pods. `events` None: no events are recorded."""
        self._backend = backend
        self._settings = settings
        self._release = release
        self._capacity = capacity
        self._placement = placement
        self._show = show
        self._warn = warn
        self._scaler = scaler
        self._events = events

    def manifest(self, stage: Stage, completions: int) -> dict[str, Any]:
        """The Job that the backend gets."""
        return manifests.job(
            stage,
            self._settings,
            self._backend.template(stage),
            release=self._release,
            completions=completions,
            parallelism=self._capacity.parallelism,
            placement=self._placement,
        )

    def run(self) -> tuple[Finished | Failed, Mapping[Stage, JobState]]:
        """Runs the remaining stages. Returns the last step and the Jobs."""
        retry = True
        created = False
        lost: set[str] = set()
        outdated = self._checked(self._backend.jobs(self._settings.run.id))
        while True:
            jobs = self._backend.jobs(self._settings.run.id)
            self._show(jobs)
            step = next_step(jobs, retry=retry, outdated=outdated)
            match step:
                case Create(stage, completions):
                    if stage is Stage.EMBED:
                        self._check_memory(jobs)
                    self._backend.create(self.manifest(stage, completions))
                    retry, created = False, True
                case Replace(stage, completions):
                    for later in list(Stage)[list(Stage).index(stage) :]:
                        self._backend.delete(manifests.job_name(self._release, self._settings.run.id, later))
                    self._backend.create(self.manifest(stage, completions))
                    retry, created, outdated = False, True, frozenset()
                case Wait(stage):
                    if reason := self._capacity.given_up(jobs[stage]):
                        # Pods that still wait would make an autoscaler add nodes that nobody needs.
                        self._record(jobs[stage], "NoCapacity", reason, warning=True)
                        self._backend.delete(jobs[stage].name)
                        return Failed(stage, reason), jobs
                    for node in jobs[stage].lost_nodes:
                        if node.name not in lost:
                            lost.add(node.name)
                            self._record(jobs[stage], "NodeLost", node.problem, warning=True)
                    if self._scaler and (wider := self._capacity.wider(jobs[stage])):
                        self._scaler.widen(jobs[stage], wider)
                    self._backend.wait(POLL_SECONDS)
                case Finished(changed=False):
                    # Without its Job, the next update compares the source again.
                    self._backend.delete(jobs[Stage.PLAN].name)
                    return step, jobs
                case Failed(stage, reason):
                    self._record(jobs[stage], "RunFailed", reason, warning=True)
                    return step, jobs
                case Finished():
                    if created:
                        self._record(jobs[Stage.INGEST], "RunPublished", _published(jobs), warning=False)
                    return step, jobs

    def _check_memory(self, jobs: Mapping[Stage, JobState]) -> None:
        plan = planned(jobs)
        if plan and (reason := store_memory.shortage(plan, self._settings.jobs.store_memory)):
            self._warn(reason)
            self._record(jobs[Stage.PLAN], "StoreTooSmall", reason, warning=True)

    def _record(self, job: JobState, reason: str, message: str, *, warning: bool) -> None:
        if self._events:
            self._events.record(job, reason, message, warning=warning)

    def _checked(self, jobs: Mapping[Stage, JobState]) -> frozenset[Stage]:
        """The stages whose Jobs have not begun, and would have other pods now: with the image of an upgraded release,
        with other GPUs, or in another queue. The pods that they have may never start.

        Raises PermanentError where a Job of this run has other options. The options of a failed Job may change."""
        outdated = set()
        for stage, job in jobs.items():
            manifest = self.manifest(stage, job.completions)
            spec_hash = manifest["metadata"]["annotations"][labels.SPEC_HASH]
            if job.phase is not Phase.FAILED and job.spec_hash != spec_hash:
                raise PermanentError(
                    f"run {self._settings.run.id} exists with other options (Job {job.name} has spec {job.spec_hash}, "
                    f"this command has {spec_hash}). Use the same options as before, or another --run"
                )
            if not job.begun and manifests.has_other_pods(job.template_hash, manifest):
                outdated.add(stage)
                self._warn(
                    f"no pod of Job {job.name} has started, and this command creates other pods: the Job is made anew"
                )
        return frozenset(outdated)


def _published(jobs: Mapping[Stage, JobState]) -> str:
    result = ingested(jobs)
    if result is None:
        return "the run is published"
    return f"index {result.index}: {result.images} images searchable, {result.bad} bad"
