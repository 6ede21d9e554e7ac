"""State of a Job at one moment, read from the Job, its pods and its annotations. Pure.

A Job is a batch/v1 object of Kubernetes, whichever backend keeps it. Its conditions decide its phase; its counts are
for display (https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from controller.jobs.annotations import JobProgress, JobRecord, Overflow
from controller.jobs.conditions import failed_indexes
from controller.jobs.indexes import parse_indexes
from controller.jobs.results import UNKNOWN_ERROR, IndexReport, IngestResult, PlanResult
from controller.jobs.usage import GpuHours, Usage, requested_gpu
from imgsearch import labels
from imgsearch.errors import PermanentError
from imgsearch.settings import PREFIX

BASE = f"{PREFIX}_RUN_BASE"


class Stage(StrEnum):
    """The stages of a run that are Jobs, in their order."""

    PLAN = "plan"
    EMBED = "embed"
    INGEST = "ingest"


class Phase(StrEnum):
    """The phase of a Job."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    COMPLETE = "complete"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (Phase.COMPLETE, Phase.FAILED)


@dataclass(frozen=True)
class LostNode:
    """A node that does not end pods that were deleted: its machine is gone, or has no connection to the cluster."""

    name: str
    since: str
    pods: int

    @property
    def problem(self) -> str:
        """The problem, and the commands that free the pods, as a sentence."""
        pods = "1 pod" if self.pods == 1 else f"{self.pods:,} pods"
        return (
            f"node {self.name} does not answer (since {self.since}), so {pods} cannot end or be replaced. If its "
            f"machine is gone, run `kubectl delete node {self.name}`. If it is off and will come back, run `kubectl "
            f"taint nodes {self.name} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`, and remove the taint "
            "when it is back"
        )


@dataclass(frozen=True)
class JobState:
    """One Job at one moment. Its counts and indexes include those of rented machines, except `active`."""

    name: str
    spec_hash: str
    stage: Stage
    phase: Phase
    completions: int
    succeeded: frozenset[int]
    failed: frozenset[int]
    active: int
    reason: str
    """The reason of its failure; empty before it fails."""
    started: str
    finished: str
    indexes: Mapping[int, IndexReport] = field(default_factory=dict)
    parallelism: int = 1
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Reasons why pods have not started, and the number of pods for each."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """The reason why pods are not created, such as a quota, and their number."""
    waiting_since: str = ""
    """The time since which its pods need a node and none of them has one; empty otherwise."""
    waits: Mapping[int, str] = field(default_factory=dict)
    """By undecided index without a node, the time since which it waits."""
    lost_nodes: Sequence[LostNode] = ()
    """Kubernetes replaces a pod of the Job after it has ended, so not the pods of these nodes."""
    usage: Usage = field(default_factory=Usage)
    progress: JobProgress = field(default_factory=JobProgress)
    """As a controller has last written it."""
    record: JobRecord = field(default_factory=JobRecord)
    """Empty until the Job ends, and where no controller has written it."""
    plan: PlanResult | None = None
    """Of its run: it has the size of shards whose results are lost. None where it is not known."""
    overflow: Overflow = field(default_factory=Overflow)
    uid: str = ""
    """Differs between Jobs of one name; empty outside Kubernetes."""
    base: str | None = None
    """The run that its run updates; None: its run indexes everything."""
    template_hash: str = ""
    """Of its pod template as the controller made it; empty in a Job of an earlier version."""
    begun: bool = True
    """Whether one of its pods has started, or may have."""
    queue: str = ""
    """The queue of Kueue that it is in, also where Kueue itself chose it; empty without one."""
    queued: str = ""
    """The reason why it waits in its queue; empty where it does not wait there."""

    @property
    def result(self) -> Mapping[str, Any]:
        """Termination message of a Job with one completion; empty where its pod is gone and was not recorded."""
        result = self.indexes.get(0, IndexReport()).result if self.completions == 1 else None
        return result or self.record.result

    @property
    def images_done(self) -> int:
        """Images that finished indexes processed and that running indexes have logged."""
        if self.plan and self.phase is Phase.COMPLETE and self._unreported:
            return self.plan.images
        return self._own_images + self.overflow.images

    @property
    def images_bad(self) -> int:
        return self._own_bad + self.overflow.bad

    def errors(self) -> dict[int, str]:
        """The error of each failed index."""
        return {
            index: str(
                self.overflow.failed.get(index)
                or self.indexes.get(index, IndexReport()).error
                or self.record.errors.get(index, UNKNOWN_ERROR)
            )
            for index in sorted(self.failed)
        }

    def to_progress(self, deleted: GpuHours) -> JobProgress:
        """The reports of its pods so far. `deleted`: the GPU hours of its deleted pods."""
        return JobProgress(max(self._reported_images, self.progress.images), self._own_bad, deleted)

    def to_record(self) -> JobRecord:
        """The record of its own pods; the results of rented machines have an annotation of their own."""
        return JobRecord(self.result, self._own_images, self._own_bad, self.usage.of_pods, self.errors())

    @property
    def _own_images(self) -> int:
        images = max(self._reported_images, self.progress.images, self.record.images)
        if self.plan is None:
            return images
        if self.record == JobRecord() and (unreported := self._unreported):
            logged = sum(self.indexes[index].done for index in unreported if index in self.indexes)
            planned = len(unreported) * self.plan.images // self.plan.shards
            images = max(images, self._reported_images - logged + planned)
        # A rented machine may have finished an index of which a pod had done a part.
        return min(images, self.plan.images - self.overflow.images)

    @property
    def _reported_images(self) -> int:
        """Of its pods, according to their results and logs."""
        return sum(
            report.embedded.processed if index in self.succeeded and report.embedded else report.done
            for index, report in self._own_reports().items()
        )

    @property
    def _own_bad(self) -> int:
        observed = sum(report.embedded.bad for report in self._own_reports().values() if report.embedded)
        return max(observed, self.progress.bad, self.record.bad)

    @property
    def _unreported(self) -> frozenset[int]:
        """Indexes that its pods have finished, and whose results are lost: a pod is deleted with its node, and no
        controller may have read it."""
        own = self.succeeded - self.overflow.succeeded
        return frozenset(index for index in own if not self.indexes.get(index, IndexReport()).result)

    def _own_reports(self) -> dict[int, IndexReport]:
        """Reports of its pods, without the indexes of rented machines: no image counts twice."""
        return {index: report for index, report in self.indexes.items() if index not in self.overflow.succeeded}


def planned(jobs: Mapping[Stage, JobState]) -> PlanResult | None:
    """Result of a run's plan; None until it is complete, and where it is not known. Raises PermanentError for a result
    that is not a plan's."""
    return PlanResult.from_json(*result) if (result := _result(jobs.get(Stage.PLAN))) else None


def with_plan(jobs: Mapping[Stage, JobState]) -> dict[Stage, JobState]:
    """The Jobs of a run, with its plan in that of embed, if it can be read."""
    plan = None
    with suppress(PermanentError):  # `cleanup` deletes the Job of a damaged plan
        plan = planned(jobs)
    return {**jobs, **({Stage.EMBED: replace(jobs[Stage.EMBED], plan=plan)} if Stage.EMBED in jobs else {})}


def ingested(jobs: Mapping[Stage, JobState]) -> IngestResult | None:
    """Result of a run's ingest; None until it is complete, and where it is not known. Raises PermanentError for a
    result that is not an ingest's."""
    return IngestResult.from_json(*result) if (result := _result(jobs.get(Stage.INGEST))) else None


def _result(job: JobState | None) -> tuple[Mapping[str, Any], str] | None:
    """Result of a complete Job, and its name for messages."""
    if job is None or job.phase is not Phase.COMPLETE or not job.result:
        return None
    return job.result, f"the result of Job {job.name}"


def job_state(
    job: Mapping[str, Any],
    indexes: Mapping[int, IndexReport],
    *,
    waiting: Mapping[str, int] | None = None,
    waiting_since: str = "",
    waits: Mapping[int, str] | None = None,
    lost_nodes: Sequence[LostNode] = (),
    gpu_hours: GpuHours | None = None,
    begun: bool = True,
) -> JobState:
    """The state of a batch/v1 Job with its status. `gpu_hours` are those of all pods that the caller has seen, and
    `begun` whether one of these has started."""
    annotations = job["metadata"]["annotations"]
    pod_annotations = job["spec"].get("template", {}).get("metadata", {}).get("annotations") or {}
    status = job.get("status", {})
    conditions = _conditions(status)
    name = job["metadata"]["name"]
    overflow = Overflow.from_json(annotations.get(labels.OVERFLOW, "{}"), name)
    record = JobRecord.from_json(annotations.get(labels.RECORD, "{}"), name)
    progress = JobProgress.from_json(annotations.get(labels.PROGRESS, "{}"), name)
    completed = frozenset(parse_indexes(status.get("completedIndexes", "")))
    broken = frozenset(parse_indexes(status.get("failedIndexes", "")))
    # An index that succeeded anywhere is done, even where it failed elsewhere.
    succeeded = completed | overflow.succeeded
    failed = (broken | overflow.failed.keys()) - succeeded
    phase, reason = _phase_of(conditions)
    # Kubernetes itself ends a Job whose indexes are all decided by pods.
    if not phase.ended and len(completed | broken) < job["spec"]["completions"] == len(succeeded | failed):
        phase, reason = (Phase.FAILED, failed_indexes(failed)) if failed else (Phase.COMPLETE, "")
    return JobState(
        name=name,
        spec_hash=annotations[labels.SPEC_HASH],
        stage=Stage(job["metadata"]["labels"][labels.COMPONENT]),
        phase=phase,
        completions=job["spec"]["completions"],
        succeeded=succeeded,
        failed=failed,
        active=status.get("active", 0),
        reason=reason,
        started=status.get("startTime", ""),
        finished=status.get("completionTime", "")
        or conditions.get("Failed", {}).get("lastTransitionTime", "")
        or overflow.finished,
        indexes=indexes,
        parallelism=job["spec"]["parallelism"],
        waiting=waiting or {},
        waiting_since=waiting_since,
        waits={index: since for index, since in (waits or {}).items() if index not in succeeded | failed},
        usage=Usage(
            requested_gpu(pod_annotations.get(labels.ACCELERATOR, ""), pod_annotations.get(labels.SPOT, "")),
            observed=gpu_hours or {},
            recorded=record.gpu_hours,
            rented=overflow.gpu_hours,
        ),
        lost_nodes=lost_nodes,
        progress=progress,
        record=record,
        overflow=overflow,
        uid=job["metadata"].get("uid", ""),
        base=_base(job["spec"]),
        template_hash=annotations.get(labels.TEMPLATE_HASH, ""),
        begun=begun or bool(status.get("failed") or succeeded or failed or progress != JobProgress()),
        queue=job["metadata"]["labels"].get(labels.QUEUE, ""),
    )


def _base(spec: Mapping[str, Any]) -> str | None:
    """The base in the environment of its pods."""
    containers = spec.get("template", {}).get("spec", {}).get("containers") or [{}]
    return next((entry["value"] for entry in containers[0].get("env", []) if entry["name"] == BASE), None)


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions that are true, by type."""
    return {condition["type"]: condition for condition in status.get("conditions", []) if condition["status"] == "True"}


def job_phase(job: Mapping[str, Any]) -> Phase:
    """The phase of a batch/v1 Job by its conditions, without rented machines."""
    return _phase_of(_conditions(job.get("status", {})))[0]


def _phase_of(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Phase, str]:
    """The phase by the conditions, and the reason of a failure."""
    # FailureTarget and SuccessCriteriaMet announce an end while pods still run, so they do not end the Job.
    if "Complete" in conditions:
        return Phase.COMPLETE, ""
    if "Failed" in conditions:
        condition = conditions["Failed"]
        return Phase.FAILED, condition.get("message") or condition.get("reason", "")
    return (Phase.SUSPENDED if "Suspended" in conditions else Phase.ACTIVE), ""
