"""What the Workloads of Kueue say about a Job."""

from __future__ import annotations

from typing import Any

import pytest

from controller.backends.kubernetes.queues import NO_WORKLOAD, NOT_DECIDED, waits_for
from tests.controller.objects import condition

PENDING = "insufficient unused quota for nvidia.com/gpu in flavor l4, 1 more needed"


def workload(*conditions: dict[str, str], created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": created}, "status": {"conditions": [*conditions], **status}}


RESERVED = condition("QuotaReserved", message="Quota reserved in ClusterQueue gpus")
REFUSED = condition("QuotaReserved", "False", reason="Pending", message=PENDING)
PREEMPTED = condition("Evicted", reason="Preempted", message="Preempted to accommodate a workload")
CHECK = {"name": "nodes", "state": "Pending", "message": ""}


@pytest.mark.parametrize(
    ("workloads", "reason"),
    [
        ([], NO_WORKLOAD),
        ([{"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}], NOT_DECIDED),
        ([workload(REFUSED)], PENDING),
        ([workload(PREEMPTED, REFUSED)], PENDING),
        ([workload(REFUSED, created="2026-01-02T00:00:00Z"), workload(RESERVED)], PENDING),
        ([workload(RESERVED)], NOT_DECIDED),
        ([workload(RESERVED, admissionChecks=[{**CHECK, "state": "Ready"}, CHECK])], "admission check nodes: Pending"),
        (
            [workload(RESERVED, admissionChecks=[{**CHECK, "message": "1 node is being added"}])],
            "admission check nodes: 1 node is being added",
        ),
    ],
    ids=["none", "new", "no-quota", "preempted", "the-newest", "reserved", "a-check", "a-check-with-its-message"],
)
def test_the_reason_is_in_the_words_of_kueue(workloads: list[dict[str, Any]], reason: str) -> None:
    assert waits_for(workloads) == reason
