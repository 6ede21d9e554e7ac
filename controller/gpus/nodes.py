"""Finds the nodes of a cluster with the requested GPUs, and the number of free ones. Pure.

Nodes and Pods are core/v1 objects as JSON. Unlike SkyPilot, this module reads every label of every node, since a
cluster may mix them, and counts only whole GPUs of schedulable nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from controller.gpus.accelerators import (
    ACCELERATOR_LABELS,
    AUTOSCALERS,
    GKE_NAMES,
    PART_OF,
    PARTITION,
    SHARED,
    SHARING,
    SKYPILOT,
    SLICE,
    WHOLE,
    Kind,
    canonical,
)
from controller.gpus.pods import ENDED, requested
from imgsearch.errors import PermanentError, UsageError

Object = Mapping[str, Any]

SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Labels, and in some clouds taints, of spot nodes: the same as `imgsearch.spotNodes` in the chart."""

NVIDIA = "nvidia.com/gpu"
UNKNOWN = "unknown"
"""The accelerator of GPU nodes without such a label. In lower case, it sorts after the names."""
AUTOSCALER_ADVICE = "set an autoscaler that can add such nodes (pipeline.autoscaler in the chart's values)"


class NoMatchingNode(UsageError):
    """No node has these GPUs, and no autoscaler can add one: pods would wait for ever."""


class NotAllowed(PermanentError):
    """Rights are missing: the message names them and how to grant them."""


class Spot(StrEnum):
    """Whether pods run on spot nodes. The chart's terms are `prefer`, `require` and `avoid`."""

    PREFER = "prefer"
    ONLY = "only"
    NEVER = "never"


@dataclass(frozen=True)
class Offer:
    """One accelerator of a cluster, on nodes that are Ready and not cordoned."""

    accelerator: str
    """`unknown` for nodes without a label for it."""
    nodes: int
    total: int
    """GPUs."""
    free: int | None
    """GPUs that no pod requests; None where this account is not allowed to list pods."""
    spot: int
    """GPUs on spot nodes."""
    resource: str
    """The resource that pods request: `nvidia.com/gpu`."""


@dataclass(frozen=True)
class NodeMatch:
    """The nodes on which pods with one kind of GPU may run."""

    kind: Kind
    resource: str
    labels: Mapping[str, tuple[str, ...]]
    """By node label, its values for this accelerator. The labels are alternatives."""
    total: int
    """GPUs on these nodes; 0 where an autoscaler must add such nodes."""
    free: int | None
    """GPUs that no pod requests; None where this account is not allowed to list pods."""


class GpuFinder(Protocol):
    """Finds the GPUs of a cluster: with SkyPilot, or from its nodes."""

    def offers(self) -> list[Offer]: ...

    def match(self, kind: Kind) -> NodeMatch:
        """Raises NoMatchingNode."""
        ...


def offers(nodes: Sequence[Object], pods: Sequence[Object] | None) -> list[Offer]:
    """The GPUs of a cluster, sorted by accelerator; unknown ones come last."""
    groups: dict[tuple[str, str], list[_GpuNode]] = {}
    for node in _gpu_nodes(nodes):
        groups.setdefault((node.accelerator, node.resource), []).append(node)
    return [
        Offer(
            accelerator=accelerator,
            nodes=len(group),
            total=sum(node.gpus for node in group),
            free=_free(group, pods),
            spot=sum(node.gpus for node in group if node.spot),
            resource=resource,
        )
        for (accelerator, resource), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def match(
    nodes: Sequence[Object], pods: Sequence[Object] | None, kind: Kind, *, autoscaler: str | None = None
) -> NodeMatch:
    """The nodes for pods with this kind, including those that an autoscaler would add.

    A label matches where its canonical name is equal, or continues after a `-`: H100 and H100-80GB both match
    NVIDIA-H100-80GB-HBM3, and as in SkyPilot, A100 also matches A100-80GB. A100-80GB does not match A100, which has
    less memory.

    Raises NoMatchingNode where no node matches and none can be added, UsageError for an unknown autoscaler."""
    if autoscaler is not None and autoscaler not in AUTOSCALERS:
        raise UsageError(f"invalid autoscaler {autoscaler!r}: choose one of {', '.join(AUTOSCALERS)}")
    gpu_nodes = _gpu_nodes(nodes)
    fitting = [node for node in gpu_nodes if node.matching(kind)]
    if not fitting and autoscaler is None:
        raise _no_matching_node(kind, gpu_nodes)

    sizes: Counter[str] = Counter()
    for node in fitting:
        sizes[node.resource] += node.gpus
    # All pods of a Job request one resource: take the one with the most GPUs.
    resource = max(sizes, key=lambda name: sizes[name], default=NVIDIA)
    fitting = [node for node in fitting if node.resource == resource]
    matching = {label for node in fitting for label in node.matching(kind)}

    if autoscaler is not None:
        key, write = AUTOSCALERS[autoscaler]
        if value := write(canonical(kind.name)):
            matching.add((key, value))
        elif not fitting:
            raise NoMatchingNode(
                f"no node has {kind.name}, and {autoscaler} cannot add one: it has {', '.join(GKE_NAMES)}"
            )
    values_by_label = {
        key: tuple(sorted(value for name, value in matching if name == key)) for key in ACCELERATOR_LABELS
    }
    return NodeMatch(
        kind=kind,
        resource=resource,
        labels={key: values for key, values in values_by_label.items() if values},
        total=sum(node.gpus for node in fitting),
        free=_free(fitting, pods) if fitting else 0,
    )


def find(finder: GpuFinder, kinds: Sequence[Kind]) -> list[NodeMatch]:
    """The nodes of each kind that exists or that an autoscaler can add. Raises NoMatchingNode where there is none."""
    matches, missing = [], []
    for kind in kinds:
        try:
            matches.append(finder.match(kind))
        except NoMatchingNode as error:
            missing.append(error)
    if not matches:
        raise missing[0]
    return matches


def free_pods(matches: Sequence[NodeMatch]) -> int:
    """The number of pods for which GPUs are free. Where the free GPUs are not known, all GPUs count."""
    return sum(match.total if match.free is None else match.free for match in matches)


def labelled(labels: Object, resource: str) -> tuple[str, bool]:
    """The accelerator behind a resource of a node with these labels, schedulable or not, and whether it is a spot node.
    The accelerator is empty where no label names it. A slice or a share is only a part of a GPU, and has not its
    price."""
    naming = _naming(labels)
    accelerator = canonical(naming[0][1]) if naming else ""
    shared = SHARING in labels or any(SHARED.search(value) for _, value in naming)
    whole = WHOLE.fullmatch(resource) and not shared and not _is_sliced(labels)
    return accelerator if whole or not accelerator else PART_OF + accelerator, is_spot(labels)


def pods_for(nodes: Iterable[Object], requested: Mapping[str, int]) -> int:
    """The number of pods that have room on the nodes, where each requests these devices by resource name, at least
    one."""
    rooms = []
    for node in nodes:
        allocatable = node["status"].get("allocatable", {})
        rooms.append(min(int(allocatable.get(name, 0)) // count for name, count in requested.items()))
    return sum(rooms)


@dataclass(frozen=True)
class _GpuNode:
    """A schedulable node with whole GPUs."""

    name: str
    resource: str
    gpus: int
    labels: tuple[tuple[str, str], ...]
    """The labels for its GPU, in the order of ACCELERATOR_LABELS."""
    spot: bool

    @property
    def accelerator(self) -> str:
        return canonical(self.labels[0][1]) if self.labels else UNKNOWN

    def matching(self, kind: Kind) -> list[tuple[str, str]]:
        """The labels that match this kind; empty where the node has another accelerator."""
        wanted = canonical(kind.name)
        return [(key, value) for key, value in self.labels if f"{canonical(value)}-".startswith(f"{wanted}-")]


def _gpu_nodes(nodes: Iterable[Object]) -> list[_GpuNode]:
    return [gpu_node for node in nodes if (gpu_node := _gpu_node(node))]


def _gpu_node(node: Object) -> _GpuNode | None:
    """None for a node that is not schedulable, has no GPU, or only parts of GPUs."""
    status, labels = node["status"], node["metadata"].get("labels", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    gpus = {
        name: int(count)
        for name, count in status.get("allocatable", {}).items()
        if WHOLE.fullmatch(name) and int(count) > 0
    }
    if not ready or node.get("spec", {}).get("unschedulable") or not gpus or _is_sliced(labels):
        return None
    resource = max(gpus, key=lambda name: gpus[name])
    return _GpuNode(node["metadata"]["name"], resource, gpus[resource], _naming(labels), is_spot(labels))


def _naming(labels: Object) -> tuple[tuple[str, str], ...]:
    """The labels for the GPU of a node, in the order of ACCELERATOR_LABELS."""
    return tuple((key, value) for key in ACCELERATOR_LABELS if (value := labels.get(key)))


def _is_sliced(labels: Object) -> bool:
    return PARTITION in labels or any(SLICE.search(value) for _, value in _naming(labels))


def is_spot(labels: Object) -> bool:
    """Whether a node with these labels is a spot node."""
    return any(labels.get(key) == value for key, value in SPOT_LABELS.items())


def _free(nodes: Sequence[_GpuNode], pods: Sequence[Object] | None) -> int | None:
    if pods is None:
        return None
    resources = {node.name: node.resource for node in nodes}
    left = {node.name: node.gpus for node in nodes}
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if name in left and pod.get("status", {}).get("phase") not in ENDED:
            left[name] -= requested(pod["spec"], resources[name])
    # A broken device is not allocatable, but a pod may still hold it.
    return sum(max(0, count) for count in left.values())


def _no_matching_node(kind: Kind, gpu_nodes: Sequence[_GpuNode]) -> NoMatchingNode:
    missing = f"no node has {kind.name}"
    if not gpu_nodes:
        return NoMatchingNode(
            f"{missing}: the cluster has no node with a whole GPU that is Ready and not cordoned; add one, or "
            f"{AUTOSCALER_ADVICE}"
        )
    named = sorted({node.accelerator for node in gpu_nodes if node.labels})
    nameless = [node.name for node in gpu_nodes if not node.labels]
    advice = f"`kubectl label node {nameless[0]} {SKYPILOT}={kind.name.lower()}`" if nameless else ""
    if not named:
        return NoMatchingNode(
            f"{missing}: the GPU nodes of the cluster have no label for their accelerator; label the nodes that have "
            f"it: {advice}"
        )
    choice = f"{missing}; the cluster has {', '.join(named)}: choose one of these, or {AUTOSCALER_ADVICE}"
    return NoMatchingNode(f"{choice}; or, if {nameless[0]} has it, label it: {advice}" if nameless else choice)
