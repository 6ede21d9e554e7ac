"""The status of a Job that has ended, as Kubernetes writes it. Pure.

https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from controller.jobs.indexes import format_indexes


def end_status(failed: Collection[int], time: str) -> dict[str, Any]:
    """The status of a Job whose indexes are all decided: complete, or failed where some of them `failed`."""
    if failed:
        return failed_status("FailedIndexes", failed_indexes(failed), time)
    return {"conditions": [_condition("Complete", "CompletionsReached", "", time)], "completionTime": time}


def failed_status(reason: str, message: str, time: str) -> dict[str, Any]:
    """The status of a failed Job."""
    return {"conditions": [_condition("Failed", reason, message, time)]}


def failed_indexes(failed: Collection[int]) -> str:
    """The reason why a Job with these failed indexes has failed."""
    return f"indexes {format_indexes(failed)} failed"


def _condition(type: str, reason: str, message: str, time: str) -> dict[str, Any]:
    return {"type": type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": time}
