"""GPUs that pods request. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

ENDED = ("Succeeded", "Failed")
"""Phases of a pod that holds no GPU any more."""


def requested_gpus(pod: Mapping[str, Any]) -> dict[str, int]:
    """The GPUs of a PodSpec by resource name (`nvidia.com/gpu`), as the scheduler computes them: init containers run
    one after the other before the others; sidecars run beside the containers after them
    (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers)."""
    most: Counter[str] = Counter()
    sidecars: Counter[str] = Counter()
    for container in pod.get("initContainers", []):
        requests = _requests(container)
        most |= sidecars + requests
        if container.get("restartPolicy") == "Always":
            sidecars += requests
    return dict(most | sum(map(_requests, pod["containers"]), sidecars))


def _requests(container: Mapping[str, Any]) -> Counter[str]:
    resources = container.get("resources", {})
    counts = {**resources.get("limits", {}), **resources.get("requests", {})}
    return Counter({name: int(count) for name, count in counts.items() if name.endswith("/gpu")})
