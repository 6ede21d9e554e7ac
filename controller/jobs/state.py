"""What the controller knows of a Job: its conditions read into one state. Pure.

A Job is the batch/v1 object of Kubernetes, whether a cluster keeps it or the local backend; conditions decide, counts
are for show (https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from controller.gpus.accelerators import canonical
from controller.gpus.nodes import Spot
from imgsearch import labels

ERRORS_KEPT = 100
ERROR_LENGTH = 500
"""So many indexes' reasons outlive their pods, and so many characters of each."""
HALF_A_SECOND = 0.5 / 3600
"""In hours. Kubernetes counts whole seconds, so what differs by less is the same."""


class Stage(StrEnum):
    """The stages of a run that are Jobs, in their order."""

    PLAN = "plan"
    EMBED = "embed"
    INGEST = "ingest"


class Phase(StrEnum):
    """Where a Job stands."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    COMPLETE = "complete"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (Phase.COMPLETE, Phase.FAILED)


@dataclass(frozen=True)
class IndexReport:
    """What one completion index has said of itself."""

    result: Mapping[str, Any] | None = None
    """Its termination message; None while it has not ended."""
    done: int = 0
    """Images finished so far, as far as it has said."""
    total: int = 0


@dataclass(frozen=True)
class Gpu:
    """What GPUs were held, as far as anybody knows: their price depends on it."""

    accelerator: str = ""
    """As price lists have it; empty where nobody knows."""
    spot: bool | None = None
    """Whether on a spot node; None where nobody knows."""


@dataclass(frozen=True)
class Elsewhere:
    """What came of those completion indexes of a Job that other machines than its own pods had: an annotation of it."""

    succeeded: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)
    """The sentence of each."""
    images: int = 0
    """Counted by those that succeeded, bad ones included."""
    bad: int = 0
    in_vain: frozenset[int] = frozenset()
    """What a pod was through with before: of these only the hours count."""
    ran: Mapping[Gpu, float] = field(default_factory=dict)
    """GPU hours of all of these."""
    finished: str = ""
    """When every index of the Job was decided, here or there; empty before."""

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Elsewhere:
        return cls(
            succeeded=frozenset(parse_indexes(told.get("succeeded", ""))),
            failed={int(index): error for index, error in told.get("failed", {}).items()},
            images=told.get("images", 0),
            bad=told.get("bad", 0),
            in_vain=frozenset(parse_indexes(told.get("in_vain", ""))),
            ran=_hours(told.get("gpu_hours", [])),
            finished=told.get("finished", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Short, as an annotation has to be: of many failed indexes only the first few say why."""
        sentences = list(self.failed.items())
        return {
            "succeeded": format_indexes(self.succeeded),
            "failed": {
                str(index): error[:ERROR_LENGTH] if number < ERRORS_KEPT else ""
                for number, (index, error) in enumerate(sentences)
            },
            "images": self.images,
            "bad": self.bad,
            "in_vain": format_indexes(self.in_vain),
            "gpu_hours": _written(self.ran),
            "finished": self.finished,
        }


@dataclass(frozen=True)
class JobState:
    """One Job at one moment."""

    name: str
    spec_hash: str
    stage: Stage
    phase: Phase
    completions: int
    succeeded: frozenset[int]
    failed: frozenset[int]
    active: int
    reason: str
    """Why it failed; empty while it has not."""
    started: str
    finished: str
    indexes: Mapping[int, IndexReport] = field(default_factory=dict)
    parallelism: int = 1
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Why pods of it have not begun, and how many for each reason."""
    waiting_since: str = ""
    """Since when it has no node at all although its pods want one; empty where it has."""
    accelerator: str = ""
    """The one kind of GPU that its pods asked for; empty where there was none, or more than one."""
    spot: str = ""
    """What they asked for of spot nodes."""
    pods_gpu_hours: Mapping[Gpu, float] = field(default_factory=dict)
    """What the pods that can still be seen have held, by what their nodes say."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What was kept of it when it ended; empty before, and where nobody looked at it in time."""
    uid: str = ""
    """Tells it from another Job of its name; empty where it is no object of a Kubernetes."""
    waits: Mapping[int, str] = field(default_factory=dict)
    """Since when each undecided index waits that no node has."""
    elsewhere: Elsewhere = Elsewhere()
    """What of it is not its own pods' work. All counts and indexes here include it, but `active`."""

    @property
    def result(self) -> Mapping[str, Any]:
        """Of a Job with one completion: its result; empty where its pod went before anyone had read it."""
        said = self.indexes.get(0, IndexReport()).result if self.completions == 1 else None
        return said or self.record.get("result", {})

    @property
    def images_done(self) -> int:
        """Images that finished indexes counted and running ones have reported."""
        return self._own_images + self.elsewhere.images

    @property
    def images_bad(self) -> int:
        return self._own_bad + self.elsewhere.bad

    @property
    def asked(self) -> Gpu:
        """What its pods asked for."""
        return Gpu(canonical(self.accelerator), {Spot.ONLY.value: True, Spot.NEVER.value: False}.get(self.spot))

    @property
    def ran(self) -> Mapping[Gpu, float]:
        """GPU hours that were held for it so far, as far as somebody has seen it, by what it ran on. Where nobody has
        seen the node of a pod, that is what it asked for."""
        return summed(self._own_ran, self.elsewhere.ran)

    @property
    def _own_images(self) -> int:
        seen = sum(
            counted(report.result) if index in self.succeeded and report.result else report.done
            for index, report in self._own_reports().items()
        )
        return max(seen, int(self.record.get("images", 0)))

    @property
    def _own_bad(self) -> int:
        seen = sum(int(report.result.get("bad", 0)) for report in self._own_reports().values() if report.result)
        return max(seen, int(self.record.get("bad", 0)))

    @property
    def _own_ran(self) -> Mapping[Gpu, float]:
        asked = self.asked
        return summed(
            *(
                {Gpu(gpu.accelerator or asked.accelerator, asked.spot if gpu.spot is None else gpu.spot): hours}
                for gpu, hours in self._own_held.items()
            )
        )

    @property
    def _own_held(self) -> Mapping[Gpu, float]:
        """GPU hours as far as nodes have said whose: those that were kept, or that can be seen where that is more."""
        kept, seen = _hours(self.record.get("gpu_hours", [])), self.pods_gpu_hours
        more = sum(seen.values()) - sum(kept.values())
        if abs(more) > HALF_A_SECOND:
            return seen if more > 0 else kept
        # Nodes may have gone since then, or whoever kept it was not allowed to look at them.
        return max(kept, seen, key=lambda held: sum(hours for gpu, hours in held.items() if gpu.spot is not None))

    @property
    def gpu_hours(self) -> float:
        """The sum of what ran."""
        return sum(self.ran.values())

    def errors(self) -> dict[int, str]:
        """The sentence of each failed index."""
        kept = self.record.get("errors", {})
        unknown = "it ended without a word; its log may tell"
        return {
            index: str(
                self.elsewhere.failed.get(index)
                or (self.indexes.get(index, IndexReport()).result or {}).get("error")
                or kept.get(str(index), unknown)
            )
            for index in sorted(self.failed)
        }

    def _own_reports(self) -> dict[int, IndexReport]:
        """What its pods have said, but for what was done elsewhere: no image counts twice."""
        return {index: report for index, report in self.indexes.items() if index not in self.elsewhere.succeeded}

    def to_record(self) -> dict[str, Any]:
        """What is to be kept of a Job that has ended, since its pods go with their nodes: an annotation, and a short
        one (https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/: 256 KiB for all). What
        was done elsewhere has one of its own."""
        errors = list(self.errors().items())[:ERRORS_KEPT]
        return {
            "result": self.result,
            "images": self._own_images,
            "bad": self._own_bad,
            "gpu_hours": _written(self._own_held),
            "errors": {str(index): error[:ERROR_LENGTH] for index, error in errors},
        }


def job_state(
    job: Mapping[str, Any],
    indexes: Mapping[int, IndexReport],
    *,
    waiting: Mapping[str, int] | None = None,
    waiting_since: str = "",
    gpu_hours: Mapping[Gpu, float] | None = None,
    waits: Mapping[int, str] | None = None,
) -> JobState:
    """Reads a batch/v1 Job with its status."""
    annotations = job["metadata"]["annotations"]
    pods_annotations = job["spec"].get("template", {}).get("metadata", {}).get("annotations") or {}
    status = job.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    completions = job["spec"]["completions"]
    elsewhere = Elsewhere.from_json(json.loads(annotations.get(labels.ELSEWHERE, "{}")))
    done, broken = (frozenset(parse_indexes(status.get(f"{how}Indexes", ""))) for how in ("completed", "failed"))
    # What is done is done, whatever went wrong with it at another place.
    succeeded = done | elsewhere.succeeded
    failed = (broken | elsewhere.failed.keys()) - succeeded
    # FailureTarget and SuccessCriteriaMet announce an end while pods still run: not finished yet.
    if "Complete" in conditions:
        phase, reason = Phase.COMPLETE, ""
    elif "Failed" in conditions:
        told = conditions["Failed"]
        phase, reason = Phase.FAILED, told.get("message") or told.get("reason", "")
    elif len(done | broken) < completions == len(succeeded | failed):  # or else Kubernetes will say so itself
        phase, reason = (Phase.FAILED, f"indexes {format_indexes(failed)} failed") if failed else (Phase.COMPLETE, "")
    elif "Suspended" in conditions:
        phase, reason = Phase.SUSPENDED, ""
    else:
        phase, reason = Phase.ACTIVE, ""
    return JobState(
        name=job["metadata"]["name"],
        spec_hash=annotations[labels.SPEC_HASH],
        stage=Stage(job["metadata"]["labels"][labels.COMPONENT]),
        phase=phase,
        completions=completions,
        succeeded=succeeded,
        failed=failed,
        active=status.get("active", 0),
        reason=reason,
        started=status.get("startTime", ""),
        finished=status.get("completionTime", "")
        or conditions.get("Failed", {}).get("lastTransitionTime", "")
        or elsewhere.finished,
        indexes=indexes,
        parallelism=job["spec"]["parallelism"],
        waiting=waiting or {},
        waiting_since=waiting_since,
        accelerator=pods_annotations.get(labels.ACCELERATOR, ""),
        spot=pods_annotations.get(labels.SPOT, ""),
        pods_gpu_hours=gpu_hours or {},
        record=json.loads(annotations.get(labels.RECORD, "{}")),
        uid=job["metadata"].get("uid", ""),
        waits={index: since for index, since in (waits or {}).items() if index not in succeeded | failed},
        elsewhere=elsewhere,
    )


def parse_indexes(text: str) -> Iterator[int]:
    """`0-2,5` → 0, 1, 2, 5: how a Job's status writes completion indexes."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def format_indexes(indexes: frozenset[int] | set[int]) -> str:
    """0, 1, 2, 5 → `0-2,5`."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in spans)


def counted(result: Mapping[str, Any]) -> int:
    """The images that an index which has ended was through with."""
    return int(result.get("images", 0)) + int(result.get("bad", 0))


def summed(*each: Mapping[Gpu, float]) -> dict[Gpu, float]:
    """GPU hours together."""
    total: dict[Gpu, float] = {}
    for hours in each:
        for gpu, held in hours.items():
            total[gpu] = total.get(gpu, 0.0) + held
    return total


def _written(ran: Mapping[Gpu, float]) -> list[dict[str, Any]]:
    return [{"accelerator": gpu.accelerator, "spot": gpu.spot, "hours": round(hours, 6)} for gpu, hours in ran.items()]


def _hours(written: Iterable[Mapping[str, Any]]) -> dict[Gpu, float]:
    return {Gpu(each["accelerator"], each["spot"]): each["hours"] for each in written}
