"""Values that the controller keeps in annotations of a Job: the progress of its pods, a record of them after its end,
and the results of rented machines. Pure.

The annotations of an object have 256 KiB together
(https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/), so a record and an overflow keep the
reasons of the first failed indexes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from controller.jobs.indexes import format_indexes, parse_indexes
from controller.jobs.usage import GpuHours, hours_from_json, hours_to_json
from imgsearch import typed_json

ADVICE = "delete the Job with `controller cleanup`, then give the same command again"
ERRORS_KEPT = 100
ERROR_CHARACTERS = 500

Number = Annotated[str, Field(pattern="^[0-9]+$")]
Indexes = Annotated[str, Field(pattern="^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$")]


class GpuHoursEntry(TypedDict):
    """The hours of one kind of GPU, as an annotation has them."""

    accelerator: str
    spot: bool | None
    hours: float


class RecordEntry(TypedDict, total=False):
    """A JobRecord as an annotation."""

    result: dict[str, Any]
    images: int
    bad: int
    gpu_hours: list[GpuHoursEntry]
    errors: dict[Number, str]


class ProgressEntry(TypedDict, total=False):
    """A JobProgress as an annotation."""

    images: int
    bad: int
    gpu_hours: list[GpuHoursEntry]


class OverflowEntry(TypedDict, total=False):
    """An Overflow as an annotation. The names are in Jobs that exist, so they stay."""

    succeeded: Indexes
    failed: dict[Number, str]
    images: int
    bad: int
    in_vain: Indexes
    gpu_hours: list[GpuHoursEntry]
    finished: str


@dataclass(frozen=True)
class JobRecord:
    """Results of the pods of a finished Job: the controller keeps them after the pods are gone."""

    result: Mapping[str, Any] = field(default_factory=dict)
    """Of a Job with one completion: its termination message."""
    images: int = 0
    """Images processed, bad ones included."""
    bad: int = 0
    gpu_hours: GpuHours = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    """By failed index."""

    @classmethod
    def from_json(cls, text: str, name: str) -> JobRecord:
        """Raises PermanentError, with the name of the Job, for another annotation."""
        record = typed_json.parse(RecordEntry, text, f"the record of Job {name}", advice=ADVICE)
        return cls(
            result=record.get("result", {}),
            images=int(record.get("images", 0)),
            bad=int(record.get("bad", 0)),
            gpu_hours=hours_from_json(record.get("gpu_hours", [])),
            errors={int(index): error for index, error in record.get("errors", {}).items()},
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "result": self.result,
            "images": self.images,
            "bad": self.bad,
            "gpu_hours": hours_to_json(self.gpu_hours),
            "errors": {str(index): error for index, error in _first_errors(self.errors).items()},
        }


@dataclass(frozen=True)
class JobProgress:
    """Progress of an active Job: a node takes the log and the GPU hours of its pods with it."""

    images: int = 0
    """Images processed, bad ones included."""
    bad: int = 0
    gpu_hours: GpuHours = field(default_factory=dict)
    """Of the pods that are deleted."""

    @classmethod
    def from_json(cls, text: str, name: str) -> JobProgress:
        """Raises PermanentError, with the name of the Job, for another annotation."""
        progress = typed_json.parse(ProgressEntry, text, f"the progress of Job {name}", advice=ADVICE)
        return cls(
            images=progress.get("images", 0),
            bad=progress.get("bad", 0),
            gpu_hours=hours_from_json(progress.get("gpu_hours", [])),
        )

    def to_json(self) -> dict[str, Any]:
        return {"images": self.images, "bad": self.bad, "gpu_hours": hours_to_json(self.gpu_hours)}


@dataclass(frozen=True)
class Overflow:
    """Results of the completion indexes that rented machines ran, which the Job's own status does not include."""

    succeeded: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)
    """The error of each."""
    images: int = 0
    """Images processed by the succeeded indexes, bad ones included."""
    bad: int = 0
    superseded: frozenset[int] = frozenset()
    """Indexes that a pod finished first: only their GPU hours count."""
    gpu_hours: GpuHours = field(default_factory=dict)
    """Of all these indexes."""
    finished: str = ""
    """The time at which the last index of the Job was decided, by a pod or a rented machine; empty before that."""

    @classmethod
    def from_json(cls, text: str, name: str) -> Overflow:
        """Raises PermanentError, with the name of the Job, for another annotation."""
        overflow = typed_json.parse(OverflowEntry, text, f"the overflow of Job {name}", advice=ADVICE)
        return cls(
            succeeded=frozenset(parse_indexes(overflow.get("succeeded", ""))),
            failed={int(index): error for index, error in overflow.get("failed", {}).items()},
            images=overflow.get("images", 0),
            bad=overflow.get("bad", 0),
            superseded=frozenset(parse_indexes(overflow.get("in_vain", ""))),
            gpu_hours=hours_from_json(overflow.get("gpu_hours", [])),
            finished=overflow.get("finished", ""),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "succeeded": format_indexes(self.succeeded),
            "failed": {str(index): "" for index in self.failed}
            | {str(index): error for index, error in _first_errors(self.failed).items()},
            "images": self.images,
            "bad": self.bad,
            "in_vain": format_indexes(self.superseded),
            "gpu_hours": hours_to_json(self.gpu_hours),
            "finished": self.finished,
        }


def _first_errors(errors: Mapping[int, str]) -> dict[int, str]:
    return {index: error[:ERROR_CHARACTERS] for index, error in [*errors.items()][:ERRORS_KEPT]}
