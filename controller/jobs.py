"""What the controller knows of a Job: its conditions read into one state. Pure.

A Job is the batch/v1 object of Kubernetes, whether a cluster keeps it or the local backend; conditions decide, counts
are for show (https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from imgsearch import labels

ERRORS_KEPT = 100
ERROR_LENGTH = 500
"""So many indexes' reasons outlive their pods, and so many characters of each."""


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


@dataclass(frozen=True)
class IndexReport:
    """What one completion index has said of itself."""

    result: Mapping[str, Any] | None = None
    """Its termination message; None while it has not ended."""
    done: int = 0
    """Images finished so far, as far as it has said."""
    total: int = 0


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
    pods_gpu_hours: float = 0.0
    """What the pods that can still be seen have held."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What was kept of it when it ended; empty before, and where nobody looked at it in time."""

    @property
    def result(self) -> Mapping[str, Any]:
        """Of a Job with one completion: its result; empty where its pod went before anyone had read it."""
        said = self.indexes.get(0, IndexReport()).result if self.completions == 1 else None
        return said or self.record.get("result", {})

    @property
    def images_done(self) -> int:
        """Images that finished indexes counted and running ones have reported."""
        seen = sum(
            _counted(report.result) if index in self.succeeded and report.result else report.done
            for index, report in self.indexes.items()
        )
        return max(seen, int(self.record.get("images", 0)))

    @property
    def images_bad(self) -> int:
        seen = sum(int(report.result.get("bad", 0)) for report in self.indexes.values() if report.result)
        return max(seen, int(self.record.get("bad", 0)))

    @property
    def gpu_hours(self) -> float:
        """What its pods have held so far, as far as somebody has seen it."""
        return max(self.pods_gpu_hours, float(self.record.get("gpu_hours", 0)))

    def errors(self) -> dict[int, str]:
        """The sentence of each failed index."""
        kept = self.record.get("errors", {})
        unknown = "it ended without a word; its log may tell"
        return {
            index: str(
                (self.indexes.get(index, IndexReport()).result or {}).get("error") or kept.get(str(index), unknown)
            )
            for index in sorted(self.failed)
        }

    def to_record(self) -> dict[str, Any]:
        """What is to be kept of a Job that has ended, since its pods go with their nodes: an annotation, and a short
        one (https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/: 256 KiB for all)."""
        errors = list(self.errors().items())[:ERRORS_KEPT]
        return {
            "result": self.result,
            "images": self.images_done,
            "bad": self.images_bad,
            "gpu_hours": round(self.gpu_hours, 6),
            "errors": {str(index): error[:ERROR_LENGTH] for index, error in errors},
        }


def job_state(
    job: Mapping[str, Any],
    indexes: Mapping[int, IndexReport],
    *,
    waiting: Mapping[str, int] | None = None,
    waiting_since: str = "",
    gpu_hours: float = 0.0,
) -> JobState:
    """Reads a batch/v1 Job with its status."""
    annotations = job["metadata"]["annotations"]
    pods_annotations = job["spec"].get("template", {}).get("metadata", {}).get("annotations") or {}
    status = job.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    # FailureTarget and SuccessCriteriaMet announce an end while pods still run: not finished yet.
    if "Complete" in conditions:
        phase, reason = Phase.COMPLETE, ""
    elif "Failed" in conditions:
        failed = conditions["Failed"]
        phase, reason = Phase.FAILED, failed.get("message") or failed.get("reason", "")
    elif "Suspended" in conditions:
        phase, reason = Phase.SUSPENDED, ""
    else:
        phase, reason = Phase.ACTIVE, ""
    return JobState(
        name=job["metadata"]["name"],
        spec_hash=annotations[labels.SPEC_HASH],
        stage=Stage(job["metadata"]["labels"][labels.COMPONENT]),
        phase=phase,
        completions=job["spec"]["completions"],
        succeeded=frozenset(parse_indexes(status.get("completedIndexes", ""))),
        failed=frozenset(parse_indexes(status.get("failedIndexes", ""))),
        active=status.get("active", 0),
        reason=reason,
        started=status.get("startTime", ""),
        finished=status.get("completionTime", "") or conditions.get("Failed", {}).get("lastTransitionTime", ""),
        indexes=indexes,
        parallelism=job["spec"]["parallelism"],
        waiting=waiting or {},
        waiting_since=waiting_since,
        accelerator=pods_annotations.get(labels.ACCELERATOR, ""),
        spot=pods_annotations.get(labels.SPOT, ""),
        pods_gpu_hours=gpu_hours,
        record=json.loads(annotations.get(labels.RECORD, "{}")),
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


def _counted(result: Mapping[str, Any]) -> int:
    return int(result.get("images", 0)) + int(result.get("bad", 0))
