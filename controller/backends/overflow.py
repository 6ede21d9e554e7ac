"""The Cluster of a Kubernetes whose embedding overflows: shards that wait too long for a node go to rented machines.

The Kubernetes Job stays the one Job of the stage. What came of its shards elsewhere is written on it as an annotation,
so whoever reads the Job knows all of it. Between two looks everything is there, in the files of the SkyBackend and in
computed names: a controller may be killed at any moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.skypilot import attempts, backend
from controller.backends.skypilot.attempts import Index, Step
from controller.backends.skypilot.backend import SkyBackend, Taken
from controller.backends.skypilot.placement import MachinePlacement
from controller.jobs import manifests
from controller.jobs.results import Answer
from controller.jobs.state import Elsewhere, IndexReport, JobState, Stage, counted, summed
from imgsearch import labels
from imgsearch.errors import TemporaryError, UsageError
from imgsearch.settings import Settings

log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Raises UsageError where a run reads or writes what a rented machine cannot reach."""
    told = {
        "storage": (settings.storage.uri, "give the release a bucket (storage.uri in the chart's values)"),
        "source": (settings.run.source, "name a bucket"),
    }
    for what, (where, instead) in told.items():
        if where.startswith(("file:", "/")):
            raise UsageError(
                f"the {what} {where} is within the cluster, where no rented machine finds it: {instead}, "
                "or leave out --overflow"
            )


def overdue(job: JobState, taken: Collection[int], *, after: float, now: datetime, room: int) -> list[int]:
    """Which indexes go elsewhere now: those that have waited `after` seconds for a node and are not `taken`, as many
    as there is room for. The highest first: a cluster begins with the lowest, so the two meet in the middle."""
    late = [
        index
        for index, since in job.waits.items()
        if index not in taken and (now - datetime.fromisoformat(since)).total_seconds() >= after
    ]
    return sorted(late, reverse=True)[: max(0, room)]


def noted(job: JobState, taken: Taken) -> Elsewhere:
    """What a Job should say of its indexes elsewhere: what it says, and what has come of others since. Only once a
    machine is gone: whoever is told that all is over may turn the lights off."""
    said = job.elsewhere
    succeeded, failed, in_vain = set(said.succeeded), dict(said.failed), set(said.in_vain)
    images, bad, ran = said.images, said.bad, said.ran
    for number, index in sorted(taken.indexes.items()):
        if index.step is not Step.OVER or number in succeeded | failed.keys() | in_vain:
            continue
        result = index.result or {}
        if number in job.succeeded or job.phase.ended:
            if not index.seconds:
                continue
            in_vain.add(number)
        elif index.succeeded:
            succeeded.add(number)
            images, bad = images + counted(result), bad + int(result.get("bad", 0))
        elif attempts.was_refused(index):
            continue
        else:
            failed[number] = str(result.get("error", ""))
        ran = summed(ran, {taken.gpu: taken.gpus * index.seconds / 3600})
    return replace(
        said,
        succeeded=frozenset(succeeded),
        failed=failed,
        images=images,
        bad=bad,
        in_vain=frozenset(in_vain),
        ran=ran,
    )


def merged(job: JobState, indexes: Mapping[int, Index]) -> JobState:
    """A Job at work, together with what machines elsewhere do for it at this moment."""
    reports = {
        number: IndexReport(None, index.done, index.total)
        for number, index in indexes.items()
        if index.step is Step.RUNS and index.done > job.indexes.get(number, IndexReport()).done
    }
    # Only where pods wait, too: a cluster that has room is not to be taken for one that has none.
    rented = (
        {f"rented machines: {why}": count for why, count in attempts.waiting(indexes).items()} if job.waiting else {}
    )
    return replace(
        job,
        indexes={**job.indexes, **reports},
        waiting={**job.waiting, **rented},
        waiting_since=_waiting_since(job, indexes),
    )


class OverflowBackend:
    """One run on a Kubernetes, and what of its embedding has waited there for `after` seconds on rented machines.
    Raises UsageError where the file of their task is none.

    A rented machine and a pod that gets its node after all may do the same shard: embedding is idempotent."""

    def __init__(
        self,
        cluster: KubernetesBackend,
        sky: SkyBackend,
        settings: Settings,
        *,
        after: float,
        placement: MachinePlacement | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._sky = sky
        # When it has to be done, and who admits it, is the Kubernetes Job's business.
        self._settings = replace(settings, jobs=replace(settings.jobs, queue=None, deadline_seconds=None))
        self._run = settings.run.id
        self._template = sky.template(Stage.EMBED)
        self._placement = placement
        self._after = after
        self._now = now
        self._asked: set[int] = set()
        self._refused = False
        self._was_silent = False

    def template(self, stage: Stage) -> Mapping[str, Any]:
        return self._cluster.template(stage)

    def jobs(self, run: str) -> dict[Stage, JobState]:
        """Also writes on the embed Job what came of it elsewhere, and ends what has ended by that."""
        found = self._cluster.jobs(run)
        job = found.get(Stage.EMBED)
        if job is None or run != self._run:
            return found
        taken = self._sky.taken(run, job.uid)
        if taken:
            job = self._note(job, noted(job, taken))
        if job.phase.ended:
            if not job.finished:
                job = self._note(job, replace(job.elsewhere, finished=self._now().isoformat(timespec="seconds")))
            if taken:
                with self._patiently():
                    self._sky.drop(run, taken.indexes)
        elif taken:
            job = merged(job, taken.indexes)
        return {**found, Stage.EMBED: job}

    def create(self, job: Mapping[str, Any]) -> None:
        self._cluster.create(job)

    def delete(self, name: str) -> None:
        job = self._cluster.jobs(self._run).get(Stage.EMBED)
        overflowed = job is not None and job.name == name and self._sky.taken(self._run, job.uid) is not None
        self._cluster.delete(name)
        if overflowed:
            with self._patiently():
                self._sky.delete(manifests.job_name(backend.RELEASE, self._run, Stage.EMBED))

    def check(self, job: Mapping[str, Any]) -> None:
        self._cluster.check(job)

    def widen(self, job: JobState, parallelism: int) -> None:
        self._cluster.widen(job, parallelism)

    def wait(self, seconds: float) -> None:
        self._cluster.wait(seconds)
        job = self._cluster.jobs(self._run).get(Stage.EMBED)
        if job is not None:
            with self._patiently():
                self._move(job)

    def tell(self, job: JobState, reason: str, sentence: str, *, warning: bool) -> None:
        self._cluster.tell(job, reason, sentence, warning=warning)

    def runs(self) -> list[str]:
        return self._cluster.runs()

    def call(self, program: str, verb: str, settings: Settings) -> Answer:
        return self._cluster.call(program, verb, settings)

    def log(self, run: str, stage: Stage, index: int) -> str:
        return self._cluster.log(run, stage, index)

    def parallelism(self) -> int:
        return self._cluster.parallelism()

    def troubles(self) -> list[str]:
        return self._cluster.troubles()

    def stop(self) -> None:
        self._cluster.stop()

    def _note(self, job: JobState, elsewhere: Elsewhere) -> JobState:
        """The Job once it says this."""
        if elsewhere.to_json() == job.elsewhere.to_json():
            return job
        self._cluster.note(job, elsewhere)
        return self._cluster.jobs(self._run).get(Stage.EMBED, job)

    def _move(self, job: JobState) -> None:
        """Has the rented machines do what is theirs to do now."""
        taken = self._sky.taken(self._run, job.uid)
        indexes = taken.indexes if taken else {}
        if not job.phase.ended:
            if done := job.succeeded & indexes.keys():
                self._sky.drop(self._run, done)
            self._mind_refusals(job, indexes)
            if not self._refused:
                self._take(job, indexes)
        if taken:
            self._sky.wait(0)

    def _take(self, job: JobState, indexes: Mapping[int, Index]) -> None:
        room = self._sky.parallelism() - sum(index.step is not Step.OVER for index in indexes.values())
        # What no place was to have for a controller before this one may be to have now.
        theirs = {number for number, index in indexes.items() if not attempts.was_refused(index)}
        late = overdue(job, theirs, after=self._after, now=self._now(), room=room)
        if late:
            self._asked |= {*late}
            self._sky.take(self._manifest(job), late)

    def _mind_refusals(self, job: JobState, indexes: Mapping[int, Index]) -> None:
        """What one index may not have, none may: all ask for the same."""
        for number in self._asked & indexes.keys() - job.succeeded:
            if not self._refused and attempts.was_refused(indexes[number]):
                self._refused = True
                why = (indexes[number].result or {}).get("error", "")
                log.warning("no machine can be rented, so what waits stays with the cluster: %s", why)

    def _manifest(self, job: JobState) -> dict[str, Any]:
        made = manifests.job(
            Stage.EMBED,
            self._settings,
            self._template,
            release=backend.RELEASE,
            completions=job.completions,
            parallelism=self._sky.parallelism(),
            placement=self._placement,
        )
        made["metadata"]["annotations"][labels.OVERFLOW_OF] = job.uid
        return made

    @contextmanager
    def _patiently(self) -> Iterator[None]:
        """The cluster's own work goes on while SkyPilot does not answer."""
        try:
            yield
        except TemporaryError as error:
            if not self._was_silent:
                log.warning("no machine is rented while this lasts, and the cluster goes on alone: %s", error)
            self._was_silent = True


def _waiting_since(job: JobState, indexes: Mapping[int, Index]) -> str:
    """Since when neither a node nor a rented machine has had any of it; empty where one has, or nothing waits."""
    if not job.waiting_since or any(index.step in (Step.RUNS, Step.LEAVES) for index in indexes.values()):
        return ""
    # A machine that is looked for has not been looked for before that.
    asked = [index.since for index in indexes.values() if index.since]
    return max([job.waiting_since, min(asked, default=""), *(index.ended for index in indexes.values())])
