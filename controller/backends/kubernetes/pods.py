"""What a Job's pods say of its completion indexes: results, errors, why they wait, and what they have used. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

INDEX = "batch.kubernetes.io/job-completion-index"
JOB = "batch.kubernetes.io/job-name"
JOB_UID = "batch.kubernetes.io/controller-uid"
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class PodState:
    """One pod, as far as a run is concerned: a hundredth of the object, since a run may have 10,000 of them."""

    name: str
    job_uid: str
    """Of the Job that made it; one of the same name may have been there before."""
    index: int
    created: str
    phase: str
    result: Mapping[str, Any] | None
    """What it left as its termination message, or why it could not; None while it runs."""
    waits_for: str
    """Why it has not begun; empty where it has."""
    gpus: int
    node: str
    """The name of the one that has taken it; empty before."""
    started: str
    ended: str
    code: int | None
    """What it ended with, as far as that is known."""


def facts(pod: Mapping[str, Any]) -> PodState:
    """Reads a core/v1 Pod of a Job."""
    status = pod.get("status", {})
    about = pod["metadata"]
    ended = _ended(status)
    phase = status.get("phase", "Pending")
    return PodState(
        name=about["name"],
        job_uid=about["labels"].get(JOB_UID, ""),
        index=int(about.get("annotations", {}).get(INDEX, 0)),
        created=about["creationTimestamp"],
        phase=phase,
        result=_result(status, ended) if phase in ENDED else None,
        waits_for=_waits_for(status) if phase == "Pending" else "",
        gpus=sum(gpus(pod["spec"]).values()),
        node=pod["spec"].get("nodeName", ""),
        started=status.get("startTime", ""),
        ended=_ended_at(status, ended) if phase in ENDED else "",
        code=ended["exitCode"] if ended else None,
    )


def latest(pods: Iterable[PodState]) -> dict[int, PodState]:
    """The pod that speaks for each index: the one that succeeded, or else the last one that was made."""
    found: dict[int, PodState] = {}
    for pod in sorted(pods, key=lambda pod: (pod.phase == "Succeeded", pod.created, pod.name)):
        found[pod.index] = pod
    return found


def waiting(pods: Iterable[PodState]) -> dict[str, int]:
    """Why pods have not begun, and how many for each reason."""
    return dict(Counter(pod.waits_for for pod in pods if pod.waits_for).most_common())


def waiting_since(pods: Iterable[PodState]) -> str:
    """Since when no node has had a pod of these while some wait for one; empty where one has, or none waits."""
    known = list(pods)
    waits = [pod.created for pod in known if pod.phase == "Pending" and not pod.started]
    if not waits or any(pod.started and pod.phase not in ENDED for pod in known):
        return ""
    return max([min(waits), *(pod.ended for pod in known)])


def waits(pods: Iterable[PodState], completions: int, since: str) -> dict[int, str]:
    """Since when each completion index waits that no node has: since its pod was made, or the one before it ended.
    `since`: when the Job began, for those that have had no pod yet."""
    found = dict.fromkeys(range(completions), since)
    taken = set()
    for pod in sorted(pods, key=lambda pod: (pod.created, pod.name)):
        if pod.phase in ENDED:
            found[pod.index] = max(since, pod.ended)
        elif pod.node or pod.started:
            taken.add(pod.index)
        else:
            found[pod.index] = pod.created
    return {index: moment for index, moment in found.items() if index not in taken}


def gpu_hours(pods: Iterable[PodState], now: datetime) -> dict[str, float]:
    """What the pods have held, by the name of the node: from the moment that it took them, whether they then computed
    or not."""
    hours: dict[str, float] = {}
    for pod in pods:
        if pod.gpus and pod.started:
            end = datetime.fromisoformat(pod.ended) if pod.ended else now
            held = max(0.0, (end - datetime.fromisoformat(pod.started)).total_seconds()) / 3600
            hours[pod.node] = hours.get(pod.node, 0.0) + pod.gpus * held
    return hours


def _ended(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The state of the container that ended the pod: an init container that failed, or else the main one."""
    for container in status.get("initContainerStatuses", []):
        if (state := container.get("state", {}).get("terminated")) and state["exitCode"] != 0:
            return state  # type: ignore[no-any-return]
    for container in status.get("containerStatuses", []):
        if state := container.get("state", {}).get("terminated"):
            return state  # type: ignore[no-any-return]
    return None


def _ended_at(status: Mapping[str, Any], ended: Mapping[str, Any] | None) -> str:
    """When the pod ended. Where its node went, nobody saw it: then, when the last was heard of it."""
    seen = (ended or {}).get("finishedAt")
    return seen or max((c.get("lastTransitionTime") or "" for c in status.get("conditions", [])), default="")


def _result(status: Mapping[str, Any], ended: Mapping[str, Any] | None) -> Mapping[str, Any]:
    disrupted = any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions", []))
    if disrupted and status["phase"] == "Failed":  # one that was fast enough has succeeded all the same
        return {"error": "its node was taken away"}
    if ended is None:
        return {"error": status.get("message") or status.get("reason") or "its pod has failed without a reason"}
    try:
        message = json.loads(ended.get("message") or "")
        if isinstance(message, dict):
            return message
    except ValueError:
        pass
    if ended.get("reason") == "OOMKilled":
        return {"error": "it was killed: it needs more memory than its limit"}
    return {"error": ended.get("message") or f"it ended with exit code {ended['exitCode']}; its log may tell why"}


def _waits_for(status: Mapping[str, Any]) -> str:
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {}).get("waiting", {})
        if state.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return ": ".join(filter(None, [state["reason"], state.get("message", "")]))
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason", ""))
    return ""


def trouble(pod: Mapping[str, Any]) -> str | None:
    """What keeps a pod that should serve from it; None where it is ready, or has ended as it should."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if status.get("phase") == "Succeeded" or conditions.get("Ready", {}).get("status") == "True":
        return None
    if status.get("phase") == "Failed":
        return f"pod {name} has failed: {_result(status, _ended(status)).get('error', 'it was interrupted')}"
    ended = [
        state
        for container in status.get("containerStatuses", [])
        if (state := container.get("lastState", {}).get("terminated"))
    ]
    last = f"; it ended with: {ended[0].get('message') or ended[0].get('reason')}" if ended else ""
    return f"pod {name} is not ready: {_waits_for(status) or 'it is still starting'}{last}"


def gpus(pod: Mapping[str, Any]) -> dict[str, int]:
    """The GPUs that a PodSpec asks for, by the name of the resource (`nvidia.com/gpu`)."""
    asked: Counter[str] = Counter()
    for container in pod["containers"]:
        for name, count in container.get("resources", {}).get("limits", {}).items():
            if name.endswith("/gpu"):
                asked[name] += int(count)
    return dict(asked)
