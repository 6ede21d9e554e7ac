"""GPUs that pods request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENDED = ("Succeeded", "Failed")
"""Phases of a pod that holds no GPU any more."""


def requested_gpus(pod: Mapping[str, Any]) -> dict[str, int]:
    """The GPUs of a PodSpec of ours by resource name (`nvidia.com/gpu`, `nvidia.com/mig-1g.5gb`).

    A GPU is whatever extended resource the pod requests, because devices have free names
    (https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources). The chart
    refuses extended resources beside `embed.gpu`."""
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    names = {name: None for container in containers for name in _requests(container) if is_extended(name)}
    return {name: requested(pod, name) for name in names}


def requested(pod: Mapping[str, Any], resource: str) -> int:
    """The number of a resource's devices that a PodSpec requests, as the scheduler computes it: init containers run
    one after the other before the others; sidecars run beside the containers after them
    (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers)."""
    most = sidecars = 0
    for container in pod.get("initContainers", []):
        count = int(_requests(container).get(resource, 0))
        most = max(most, sidecars + count)
        if container.get("restartPolicy") == "Always":
            sidecars += count
    return max(most, sidecars + sum(int(_requests(container).get(resource, 0)) for container in pod["containers"]))


def is_extended(resource: str) -> bool:
    """Whether a resource is not one of Kubernetes itself, such as `cpu` or `hugepages-2Mi`."""
    return "/" in resource and "kubernetes.io/" not in resource


def _requests(container: Mapping[str, Any]) -> dict[str, Any]:
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
