"""Progress of a run: the states of its Jobs, from informers of the Jobs and their pods."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from controller.backends.kubernetes import pods, queues
from controller.backends.kubernetes.api import Api, Object
from controller.backends.kubernetes.gpus import NodeGpus
from controller.backends.kubernetes.informer import Informer
from controller.backends.kubernetes.pods import PodState
from controller.backends.kubernetes.troubles import Troubles
from controller.gpus.pods import ENDED, requested_gpus
from controller.jobs.annotations import JobProgress
from controller.jobs.results import PROGRESS_LINES, IndexReport, progress
from controller.jobs.state import JobState, Stage, job_state, with_plan
from controller.jobs.usage import GpuHours, added
from imgsearch import labels
from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError

log = logging.getLogger(__name__)

JOBS = ("batch/v1", "jobs")
PODS = ("v1", "pods")
POLL_SECONDS = 1.0
"""Time after which a state is read again without an event."""
LOGS = 5
"""Number of running pods whose logs are read for progress every LOG_SECONDS, in turn: the cost does not grow with the
run."""
LOG_SECONDS = 5.0
RECORD_SECONDS = 5.0
"""Time between two records of the progress of a Job."""


class RunProgress:
    """States of the Jobs that a label selector matches.

    With `records`, the controller that follows a run keeps each Job's progress and results in annotations of the Job,
    since the pods may be deleted with their nodes."""

    def __init__(
        self,
        api: Api,
        selector: str,
        nodes: NodeGpus,
        troubles: Troubles,
        *,
        changed: threading.Event,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        records: bool,
    ) -> None:
        self._api = api
        self._nodes = nodes
        self._troubles = troubles
        self._records = records
        self._following = False
        self._clock = clock
        self._now = now
        self._jobs: Informer[Object] = Informer(api, *JOBS, labels=selector, parse=lambda job: job, changed=changed)
        # The controller keeps each pod's result and GPU hours after the pod is gone.
        self._pods: Informer[PodState] = Informer(
            api,
            *PODS,
            labels=selector,
            parse=pods.pod_state,
            changed=changed,
            keep=lambda pod: pods.kept(pod, self._now()),
        )
        self._progress: dict[tuple[str, int], tuple[int, int]] = {}
        """The most images that a pod of an index has logged, and all images of the index, by Job and index. A new pod
        continues after the last part of the one before it."""
        self._deleted_before: dict[str, GpuHours] = {}
        """GPU hours of pods that were deleted before this controller has seen them, by Job."""
        self._recorded_at: dict[str, float] = {}
        self._log_read_at: dict[str, float] = {}
        self._queued: dict[str, tuple[float, str]] = {}
        self._listed: set[str] = set()
        self._logs_read_at = -LOG_SECONDS

    def states(self) -> dict[Stage, JobState]:
        """The Jobs by stage, in their order."""
        states = {}
        for job in self._jobs.values():
            if "deletionTimestamp" in job["metadata"] or job["metadata"]["labels"][labels.COMPONENT] not in list(Stage):
                continue
            state = self._state(job)
            if job["metadata"]["uid"] not in self._listed and _lacks_results(state):
                state = self._with_listed_pods(job)
            if self._records and self._following:
                self._record(job, state)
            states[state.stage] = state
        return with_plan({stage: states[stage] for stage in Stage if stage in states})

    def put(self, job: Object) -> None:
        self._jobs.put(job)

    def follow(self) -> None:
        self._following = True
        self._jobs.follow()
        self._pods.follow()

    def close(self) -> None:
        self._jobs.stop()
        self._pods.stop()

    def pod(self, index: int) -> PodState | None:
        return pods.latest(self._pods.values()).get(index)

    def _state(self, job: Object) -> JobState:
        own = [pod for pod in self._pods.values() if pod.job_uid == job["metadata"]["uid"]]
        latest = pods.latest(own)
        self._read_logs([pod for pod in latest.values() if pod.phase == "Running"])
        uid = job["metadata"]["uid"]
        reports = {
            index: IndexReport(pod.result, *self._progress.get((uid, index), (0, 0))) for index, pod in latest.items()
        }
        started = job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"]
        if any(pod.creating for pod in own):
            own = pods.with_reasons(own, self._troubles.creating())
        state = job_state(
            job,
            reports,
            waiting=pods.waiting(own),
            waiting_since=pods.waiting_since(own),
            gpu_hours=added(self._gpu_hours(job, own), self._earlier(job)),
            waits=pods.waits(own, job["spec"]["completions"], started),
            lost_nodes=pods.lost_nodes(own, self._now()),
            begun=any(pod.begun for pod in own),
        )
        if state.phase.ended:
            return state
        if not job["spec"].get("suspend"):
            return replace(state, refused=self._refused(state, own))
        return replace(state, queued=self._reason_in_queue(state.uid) if state.queue else "")

    def _gpu_hours(self, job: Object, own: list[PodState]) -> GpuHours:
        """GPU hours of these pods of a Job. Its template says which resource is their GPU: others, such as the network
        interfaces that a webhook adds to pods, are not in it."""
        gpus = requested_gpus(job["spec"]["template"]["spec"])
        held = pods.node_hours(own, self._now()) if gpus else {}
        hours = {node: spent * sum(gpus.values()) for node, spent in held.items()}
        return self._nodes.by_gpu(hours, next(iter(gpus), ""))

    def _with_listed_pods(self, job: Object) -> JobState:
        """The state with the pods listed again: their watch may be behind that of the Job. Only once for each Job: a
        pod that is gone has no result."""
        uid = job["metadata"]["uid"]
        self._listed.add(uid)
        listed, _ = self._api.select(*PODS, labels=f"{pods.JOB_UID}={uid}")
        for pod in listed:
            self._pods.put(pod)
        return self._state(job)

    def _read_logs(self, running: list[PodState]) -> None:
        if not running or self._clock() - self._logs_read_at < LOG_SECONDS:
            return
        self._logs_read_at = self._clock()
        for pod in sorted(running, key=lambda pod: self._log_read_at.get(pod.name, -LOG_SECONDS))[:LOGS]:
            self._log_read_at[pod.name] = self._logs_read_at
            key = (pod.job_uid, pod.index)
            try:
                logged = progress(self._api.tail(pod.name, PROGRESS_LINES).splitlines())
                self._progress[key] = max(logged, self._progress.get(key, (0, 0)))
            except TemporaryError as error:  # its node does not answer, and other nodes may not either
                log.debug("%s", error)
                break
            except ImgsearchError as error:  # it has just ended
                log.debug("%s", error)

    def _refused(self, state: JobState, own: list[PodState]) -> dict[str, int]:
        """The reason why a Job has fewer pods than it could have, such as a quota, and the number of these pods."""
        existing = sum(pod.phase not in ENDED for pod in own)
        missing = min(state.parallelism, state.completions - len(state.succeeded | state.failed)) - existing
        reason = self._troubles.refused().get(("Job", state.name)) if missing > 0 else None
        return {reason: missing} if reason else {}

    def _earlier(self, job: Object) -> GpuHours:
        """The GPU hours of pods that were deleted before this controller has seen them, as an earlier one has written
        them."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        if uid not in self._deleted_before:
            written = job["metadata"]["annotations"].get(labels.PROGRESS, "{}")
            self._deleted_before[uid] = JobProgress.from_json(written, name).gpu_hours
        return self._deleted_before[uid]

    def _reason_in_queue(self, uid: str) -> str:
        """The reason why Kueue does not admit the Job with this uid, read every LOG_SECONDS."""
        read_at, reason = self._queued.get(uid, (-LOG_SECONDS, ""))
        if self._clock() - read_at >= LOG_SECONDS:
            try:
                workloads, _ = self._api.select(*queues.WORKLOADS, labels=f"{queues.JOB_UID}={uid}")
                reason = queues.waits_for(workloads)
            except NotFound:
                reason = queues.NO_KUEUE
            except PermanentError:
                reason = queues.NOT_ALLOWED
            self._queued[uid] = (self._clock(), reason)
        return reason

    def _record(self, job: Object, state: JobState) -> None:
        uid, annotations = job["metadata"]["uid"], job["metadata"]["annotations"]
        if state.phase.ended:
            # A result that is still missing after its pods were listed again is lost.
            if labels.RECORD not in annotations and (uid in self._listed or not _lacks_results(state)):
                self._annotate(state, labels.RECORD, state.to_record().to_json())
        elif self._clock() - self._recorded_at.get(uid, 0.0) >= RECORD_SECONDS:
            self._recorded_at[uid] = self._clock()
            deleted = [pod for pod in self._pods.deleted() if pod.job_uid == uid]
            hours: GpuHours = added(self._gpu_hours(job, deleted), self._earlier(job))
            written = JobProgress.from_json(annotations.get(labels.PROGRESS, "{}"), state.name)
            # Another controller may have seen a pod that was deleted before this one has listed the pods.
            hours = max(hours, written.gpu_hours, key=lambda by_gpu: sum(by_gpu.values()))
            if (value := state.to_progress(hours).to_json()) != written.to_json():
                self._annotate(state, labels.PROGRESS, value)

    def _annotate(self, state: JobState, annotation: str, value: Object) -> None:
        try:
            self.put(self._api.patch(*JOBS, state.name, {"metadata": {"annotations": {annotation: json.dumps(value)}}}))
        except NotFound:  # it was deleted meanwhile
            pass
        except PermanentError as error:  # `status --watch` by a user with read access only
            self._records = False
            log.info("cannot store results in the annotations of Jobs: %s", error)


def _lacks_results(state: JobState) -> bool:
    """Whether the Job has ended with an index whose result is unknown."""
    ended = state.succeeded | state.failed if state.phase.ended else frozenset()
    ended -= state.overflow.succeeded | state.overflow.failed.keys()
    return any(state.indexes.get(index, IndexReport()).result is None for index in ended)
