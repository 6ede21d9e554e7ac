"""State of the pods of a Job: results, errors, reasons for waiting, and used GPU hours. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from controller.gpus.pods import ENDED
from controller.jobs.results import ErrorResult
from controller.jobs.state import LostNode

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
JOB_UID = "batch.kubernetes.io/controller-uid"
NODE_REMOVED = "its node was removed"
NO_REASON = "its pod failed without a reason"
OUT_OF_MEMORY = "killed: it needs more memory than its limit"
STILL_STARTING = "still starting"
LOST_AFTER = timedelta(seconds=60)
"""A pod that still runs so long after the end of its grace period is on a node that does not answer: the kubelet kills
the pod at that end."""


@dataclass(frozen=True)
class PodState:
    """The fields of a pod that a run needs: a hundredth of the object, since a run may have 10,000 pods."""

    name: str
    job_uid: str
    """Of the Job that created it: an earlier Job may have had the same name."""
    index: int
    created: str
    phase: str
    result: Mapping[str, Any] | None
    """Its termination message, or the reason why it left none; None while it runs, and if it was deleted then."""
    waits_for: str
    """The reason why it has not started; empty otherwise."""
    node: str
    """The name of its node; empty before it has one."""
    started: str
    ended: str
    code: int | None
    """Its exit code; None where it is not known."""
    begun: bool
    """Whether one of its containers has started."""
    ends_by: str = ""
    """The end of its grace period, where it was deleted and has not ended."""
    unready: str = ""
    """The time since which it runs and is not ready: that at which its node has stopped to answer."""
    creating: bool = False
    """Whether its node creates its containers: it mounts volumes and pulls images."""


def pod_state(pod: Mapping[str, Any]) -> PodState:
    """Reads a core/v1 Pod of a Job."""
    status = pod.get("status", {})
    metadata = pod["metadata"]
    terminated = _terminated(status)
    phase = status.get("phase", "Pending")
    ready: Mapping[str, str] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    return PodState(
        name=metadata["name"],
        job_uid=metadata["labels"].get(JOB_UID, ""),
        index=int(metadata.get("annotations", {}).get(COMPLETION_INDEX, 0)),
        created=metadata["creationTimestamp"],
        phase=phase,
        result=_result(status, terminated) if phase in ENDED else None,
        waits_for=_waits_for(status) if phase == "Pending" else "",
        node=pod["spec"].get("nodeName", ""),
        started=status.get("startTime", ""),
        ended=_ended_at(status, terminated) if phase in ENDED else "",
        code=terminated["exitCode"] if terminated else None,
        begun=phase != "Pending" or any(map(_has_started, status.get("initContainerStatuses", []))),
        ends_by=metadata.get("deletionTimestamp", "") if phase not in ENDED else "",
        unready=ready.get("lastTransitionTime", "") if phase == "Running" and ready.get("status") == "False" else "",
        creating=is_creating(pod),
    )


def with_reasons(pods: Iterable[PodState], creating: Mapping[str, str]) -> list[PodState]:
    """The pods, with the reasons of those whose containers are created, by name."""
    return [replace(pod, waits_for=creating.get(pod.name, "")) if pod.creating else pod for pod in pods]


def kept(pod: PodState, now: datetime) -> PodState | None:
    """The state in which a run keeps a deleted pod: with its result, and with the hours of its node. None: the pod has
    none of them."""
    if pod.result is not None:
        return pod
    if not pod.started:
        return None
    ended = min(now, datetime.fromisoformat(pod.ends_by)) if pod.ends_by else now
    end = ended.isoformat(timespec="seconds")
    return replace(pod, phase="Failed", waits_for="", ended=end, ends_by="", creating=False)


def lost_nodes(pods: Iterable[PodState], now: datetime) -> list[LostNode]:
    """The nodes that do not end deleted pods, by name."""
    since: dict[str, list[str]] = {}
    for pod in pods:
        if pod.ends_by and pod.node and datetime.fromisoformat(pod.ends_by) + LOST_AFTER < now:
            since.setdefault(pod.node, []).append(pod.unready or pod.ends_by)
    return [LostNode(node, min(times), len(times)) for node, times in sorted(since.items())]


def latest(pods: Iterable[PodState]) -> dict[int, PodState]:
    """The pod that counts for each index: the one that succeeded, or else the newest."""
    by_index: dict[int, PodState] = {}
    for pod in sorted(pods, key=lambda pod: (pod.phase == "Succeeded", pod.created, pod.name)):
        by_index[pod.index] = pod
    return by_index


def waiting(pods: Iterable[PodState]) -> dict[str, int]:
    """Reasons why pods have not started, and the number of pods for each."""
    return dict(Counter(pod.waits_for for pod in pods if pod.waits_for).most_common())


def waiting_since(pods: Iterable[PodState]) -> str:
    """The time since which some of these pods wait for a node and none has one; empty where one has, or none waits."""
    listed = list(pods)
    waits = [pod.created for pod in listed if pod.phase == "Pending" and not pod.started]
    if not waits or any(pod.started and pod.phase not in ENDED for pod in listed):
        return ""
    return max([min(waits), *(pod.ended for pod in listed)])


def waits(pods: Iterable[PodState], completions: int, since: str) -> dict[int, str]:
    """By index without a node, the time since which it waits: its pod was created then, or the pod before it ended.
    `since` is the start of the Job, for indexes that have had no pod yet."""
    times = dict.fromkeys(range(completions), since)
    taken = set()
    for pod in sorted(pods, key=lambda pod: (pod.created, pod.name)):
        if pod.phase in ENDED:
            times[pod.index] = max(since, pod.ended)
        elif pod.node or pod.started:
            taken.add(pod.index)
        else:
            times[pod.index] = pod.created
    return {index: time for index, time in times.items() if index not in taken}


def node_hours(pods: Iterable[PodState], now: datetime) -> dict[str, float]:
    """Hours by node name, from the moment at which the node accepted the pod, whether it computed or not."""
    hours: dict[str, float] = {}
    for pod in pods:
        if pod.started:
            # A node that does not end the pod may be gone, so its time counts no longer.
            end = min(now, datetime.fromisoformat(pod.ended or pod.ends_by or now.isoformat()))
            held = max(0.0, (end - datetime.fromisoformat(pod.started)).total_seconds()) / 3600
            hours[pod.node] = hours.get(pod.node, 0.0) + held
    return hours


def is_creating(pod: Mapping[str, Any]) -> bool:
    """Whether it has a node and no container has a state of its own."""
    status = pod.get("status", {})
    if status.get("phase", "Pending") != "Pending" or not pod["spec"].get("nodeName"):
        return False
    init = status.get("initContainerStatuses", [])
    return not _waits_for(status) and not any(map(_has_started, [*init, *status.get("containerStatuses", [])]))


def _has_started(container: Mapping[str, Any]) -> bool:
    return not container.get("state", {}).keys().isdisjoint({"running", "terminated"})


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The state of the container that ended the pod: an init container that failed, or else the main one."""
    for container in status.get("initContainerStatuses", []):
        if (state := container.get("state", {}).get("terminated")) and state["exitCode"] != 0:
            return state  # type: ignore[no-any-return]
    for container in status.get("containerStatuses", []):
        if state := container.get("state", {}).get("terminated"):
            return state  # type: ignore[no-any-return]
    return None


def _ended_at(status: Mapping[str, Any], terminated: Mapping[str, Any] | None) -> str:
    """The time at which the pod ended. Where its node is gone, that of its last change."""
    finished = (terminated or {}).get("finishedAt")
    return finished or max((c.get("lastTransitionTime") or "" for c in status.get("conditions", [])), default="")


def _result(status: Mapping[str, Any], terminated: Mapping[str, Any] | None) -> Mapping[str, Any]:
    disrupted = any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions", []))
    if disrupted and status["phase"] == "Failed":  # a disrupted pod may still succeed
        return ErrorResult(NODE_REMOVED).to_json()
    if terminated is None:
        return ErrorResult(status.get("message") or status.get("reason") or NO_REASON).to_json()
    try:
        message = json.loads(terminated.get("message") or "")
        if isinstance(message, dict):
            return message
    except ValueError:
        pass
    if terminated.get("reason") == "OOMKilled":
        return ErrorResult(OUT_OF_MEMORY).to_json()
    return ErrorResult(terminated.get("message") or f"exited with code {terminated['exitCode']}; see its log").to_json()


def _waits_for(status: Mapping[str, Any]) -> str:
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {}).get("waiting", {})
        if state.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return ": ".join(filter(None, [state["reason"], state.get("message", "")]))
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason", ""))
    return ""


def trouble(pod: Mapping[str, Any], creating: Mapping[str, str]) -> str | None:
    """The reason why a pod that should serve does not; None where it is ready, or ended successfully. `creating`: see
    Troubles.creating."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if status.get("phase") == "Succeeded" or conditions.get("Ready", {}).get("status") == "True":
        return None
    if status.get("phase") == "Failed":
        return f"pod {name} failed: {ErrorResult.from_json(_result(status, _terminated(status))).error}"
    terminated = [
        state
        for container in status.get("containerStatuses", [])
        if (state := container.get("lastState", {}).get("terminated"))
    ]
    last = f"; last exit: {terminated[0].get('message') or terminated[0].get('reason')}" if terminated else ""
    reason = _waits_for(status) or (creating.get(name) if is_creating(pod) else None) or STILL_STARTING
    return f"pod {name} is not ready: {reason}{last}"
