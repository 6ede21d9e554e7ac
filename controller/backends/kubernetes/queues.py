"""Workloads of Kueue: the reason why a Job waits in a queue. Pure.

Kueue makes a Workload of each Job with a queue, and writes its decisions into the conditions of the Workload
(https://kueue.sigs.k8s.io/docs/concepts/workload/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WORKLOADS = ("kueue.x-k8s.io/v1beta2", "workloads")
"""Kueue has this version of its API since 0.15."""
JOB_UID = "kueue.x-k8s.io/job-uid"
NO_KUEUE = "the cluster has no Kueue, or one before 0.15: install it, or remove the queue"
NOT_ALLOWED = (
    "this account may not list the Workloads of Kueue, which have the reason: with pipeline.queue in the chart's "
    "values, the Role of the release allows it"
)
NO_WORKLOAD = "Kueue has no Workload for the Job: it does not run, or it does not manage this namespace"
NOT_DECIDED = "Kueue has not decided yet"


def waits_for(workloads: Sequence[Mapping[str, Any]]) -> str:
    """The reason why a Job is not admitted, from its Workloads, in the words of Kueue. The newest Workload counts."""
    if not workloads:
        return NO_WORKLOAD
    newest = max(workloads, key=lambda workload: str(workload["metadata"]["creationTimestamp"]))
    status = newest.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    reserved = conditions.get("QuotaReserved", {})
    if reserved.get("status") == "False" and reserved.get("message"):
        return str(reserved["message"])
    for check in status.get("admissionChecks", []):
        if check["state"] != "Ready":
            return ": ".join(filter(None, [f"admission check {check['name']}", check.get("message") or check["state"]]))
    return NOT_DECIDED
