"""Runs one run in a Kubernetes cluster, and shards that wait too long for a node on rented machines.

The Kubernetes Job stays the only Job of the stage. An annotation of it stores the results of the rented machines, so
every reader of the Job sees them. All other state is in the files of the SkyBackend and in computed names: you may kill
the controller at any moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.skypilot import attempts
from controller.backends.skypilot.attempts import IndexState, IndexStep
from controller.backends.skypilot.backend import SKY_RELEASE, SkyBackend, Taken
from controller.backends.skypilot.placement import MachinePlacement
from controller.jobs import manifests
from controller.jobs.annotations import Overflow
from controller.jobs.results import EmbedResult, ErrorResult, IndexReport
from controller.jobs.state import JobState, Stage
from controller.jobs.usage import added
from imgsearch import labels
from imgsearch.errors import TemporaryError, UsageError
from imgsearch.settings import Settings

log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Raises UsageError where the source or the storage of a run is within the cluster."""
    locations = {
        "storage": (settings.storage.uri, "give the release a bucket (storage.uri in the chart's values)"),
        "source": (settings.run.source, "use a bucket"),
    }
    for name, (uri, advice) in locations.items():
        if uri.startswith(("file:", "/")):
            raise UsageError(
                f"rented machines cannot reach the {name} {uri} in the cluster: {advice}, or remove --overflow"
            )


def overdue(job: JobState, taken: Collection[int], *, after: float, now: datetime, limit: int) -> list[int]:
    """Indexes to rent machines for: those that have waited `after` seconds for a node and are not `taken`, at most
    `limit` of them. The highest first, since a cluster starts with the lowest."""
    late = [
        index
        for index, since in job.waits.items()
        if index not in taken and (now - datetime.fromisoformat(since)).total_seconds() >= after
    ]
    return sorted(late, reverse=True)[: max(0, limit)]


def collected(job: JobState, taken: Taken) -> Overflow:
    """The Overflow of a Job with the results of machines that have ended since. An index counts only once its machine
    is returned: the controller may stop as soon as all indexes are decided."""
    old = job.overflow
    succeeded, failed, superseded = set(old.succeeded), dict(old.failed), set(old.superseded)
    images, bad, gpu_hours = old.images, old.bad, old.gpu_hours
    for number, index in sorted(taken.indexes.items()):
        if index.step is not IndexStep.DONE or number in succeeded | failed.keys() | superseded:
            continue
        if number in job.succeeded or job.phase.ended:
            if not index.seconds:
                continue
            superseded.add(number)
        elif index.succeeded:
            embedded = EmbedResult.from_json(index.result or {})
            succeeded.add(number)
            images, bad = images + embedded.processed, bad + embedded.bad
        elif attempts.was_refused(index):
            continue
        else:
            failed[number] = ErrorResult.from_json(index.result).error
        gpu_hours = added(gpu_hours, {taken.gpu: taken.gpus * index.seconds / 3600})
    return replace(
        old,
        succeeded=frozenset(succeeded),
        failed=failed,
        images=images,
        bad=bad,
        superseded=frozenset(superseded),
        gpu_hours=gpu_hours,
    )


def merged(job: JobState, indexes: Mapping[int, IndexState]) -> JobState:
    """The state of an active Job together with its rented machines."""
    reports = {
        number: IndexReport(None, index.done, index.total)
        for number, index in indexes.items()
        if index.step is IndexStep.RUNNING and index.done > job.indexes.get(number, IndexReport()).done
    }
    # Only where pods wait as well: a cluster with free nodes must not look full.
    rented = (
        {f"rented machines: {reason}": count for reason, count in attempts.waiting(indexes).items()}
        if job.waiting
        else {}
    )
    return replace(
        job,
        indexes={**job.indexes, **reports},
        waiting={**job.waiting, **rented},
        waiting_since=_waiting_since(job, indexes),
        begun=job.begun or any(index.has_task or index.seconds for index in indexes.values()),
    )


class OverflowBackend:
    """A JobBackend for one run. Embed shards that have waited for a node for `after` seconds run on rented machines.

    A rented machine and a pod that starts late may run the same shard: embedding is idempotent."""

    def __init__(
        self,
        kubernetes: KubernetesBackend,
        sky: SkyBackend,
        settings: Settings,
        *,
        after: float,
        placement: MachinePlacement | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises UsageError where the task file of the machines is missing or invalid."""
        self._kubernetes = kubernetes
        self._sky = sky
        # The queue and the deadline apply to the Kubernetes Job.
        self._settings = replace(settings, jobs=replace(settings.jobs, queue=None, deadline_seconds=None))
        self._run = settings.run.id
        self._template = sky.template(Stage.EMBED)
        self._placement = placement
        self._after = after
        self._now = now
        self._requested: set[int] = set()
        self._refused = False
        self._has_warned = False

    def template(self, stage: Stage) -> Mapping[str, Any]:
        return self._kubernetes.template(stage)

    def jobs(self, run: str) -> dict[Stage, JobState]:
        """Also stores the results of rented machines on the embed Job, and suspends a Job that these finish."""
        states = self._kubernetes.jobs(run)
        job = states.get(Stage.EMBED)
        if job is None or run != self._run:
            return states
        taken = self._sky.taken(run, job.uid)
        if taken:
            job = self._annotated(job, collected(job, taken))
        if job.phase.ended:
            if not job.finished:
                job = self._annotated(job, replace(job.overflow, finished=self._now().isoformat(timespec="seconds")))
            if taken:
                with self._tolerant():
                    self._sky.drop(run, taken.indexes)
        elif taken:
            job = merged(job, taken.indexes)
        return {**states, Stage.EMBED: job}

    def create(self, job: Mapping[str, Any]) -> None:
        self._kubernetes.create(job)

    def delete(self, name: str) -> None:
        job = self._kubernetes.jobs(self._run).get(Stage.EMBED)
        overflowed = job is not None and job.name == name and self._sky.taken(self._run, job.uid) is not None
        self._kubernetes.delete(name)
        if overflowed:
            with self._tolerant():
                self._sky.delete(manifests.job_name(SKY_RELEASE, self._run, Stage.EMBED))

    def wait(self, seconds: float) -> None:
        self._kubernetes.wait(seconds)
        job = self._kubernetes.jobs(self._run).get(Stage.EMBED)
        if job is not None:
            with self._tolerant():
                self._advance(job)

    def close(self) -> None:
        self._kubernetes.close()

    def _annotated(self, job: JobState, overflow: Overflow) -> JobState:
        """The Job with this annotation."""
        if overflow.to_json() == job.overflow.to_json():
            return job
        self._kubernetes.annotate(job, overflow)
        return self._kubernetes.jobs(self._run).get(Stage.EMBED, job)

    def _advance(self, job: JobState) -> None:
        """Rents, checks and returns machines."""
        taken = self._sky.taken(self._run, job.uid)
        indexes = taken.indexes if taken else {}
        if not job.phase.ended:
            if done := job.succeeded & indexes.keys():
                self._sky.drop(self._run, done)
            self._check_refusals(job, indexes)
            if not self._refused:
                self._take(job, indexes)
        if taken:
            self._sky.wait(0)

    def _take(self, job: JobState, indexes: Mapping[int, IndexState]) -> None:
        limit = self._sky.parallelism() - sum(index.step is not IndexStep.DONE for index in indexes.values())
        # A machine that was refused to an earlier controller may be available now.
        taken = {number for number, index in indexes.items() if not attempts.was_refused(index)}
        late = overdue(job, taken, after=self._after, now=self._now(), limit=limit)
        if late:
            self._requested |= {*late}
            self._sky.take(self._manifest(job), late)

    def _check_refusals(self, job: JobState, indexes: Mapping[int, IndexState]) -> None:
        """Stops renting after the first refusal: all indexes request the same machine."""
        for number in self._requested & indexes.keys() - job.succeeded:
            if not self._refused and attempts.was_refused(indexes[number]):
                self._refused = True
                error = ErrorResult.from_json(indexes[number].result).error
                log.warning("SkyPilot cannot rent a machine, so waiting shards stay in the cluster: %s", error)

    def _manifest(self, job: JobState) -> dict[str, Any]:
        manifest = manifests.job(
            Stage.EMBED,
            self._settings,
            self._template,
            release=SKY_RELEASE,
            completions=job.completions,
            parallelism=self._sky.parallelism(),
            placement=self._placement,
        )
        manifest["metadata"]["annotations"][labels.OVERFLOW_OF] = job.uid
        return manifest

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """The cluster's own pods go on while SkyPilot does not answer."""
        try:
            yield
        except TemporaryError as error:
            if not self._has_warned:
                log.warning(
                    "SkyPilot does not answer, so no machine is rented until it does; the cluster continues: %s", error
                )
            self._has_warned = True


def _waiting_since(job: JobState, indexes: Mapping[int, IndexState]) -> str:
    """The time since which the Job has neither a node nor a rented machine; empty where it has one, or none waits."""
    has_machine = any(index.step in (IndexStep.RUNNING, IndexStep.STOPPING) for index in indexes.values())
    if not job.waiting_since or has_machine:
        return ""
    # While a machine is requested, the wait begins with that request at the earliest.
    requested = [index.since for index in indexes.values() if index.since]
    return max([job.waiting_since, min(requested, default=""), *(index.ended for index in indexes.values())])
