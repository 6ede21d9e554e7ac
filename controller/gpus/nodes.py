"""Which nodes of a cluster have the GPUs that a run asks for, and how many are free. Pure.

Nodes and Pods are core/v1 objects as JSON. Unlike SkyPilot, this looks at every label of every node, since a cluster
may mix them, and counts only whole GPUs of nodes that take pods.
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
    PARTITION,
    SKYPILOT,
    SLICE,
    Kind,
    canonical,
)
from imgsearch.errors import PermanentError, UsageError

Object = Mapping[str, Any]

SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""How clouds label, and some taint, their spot nodes: as `imgsearch.spotNodes` of the chart has it."""

NVIDIA = "nvidia.com/gpu"
UNKNOWN = "unknown"
"""The accelerator of GPU nodes that no label names; names are in capitals, and so come first."""
ENDED = ("Succeeded", "Failed")
AUTOSCALER_ADVICE = "set an autoscaler that can add such nodes (pipeline.autoscaler in the chart's values)"


class NoSuchShape(UsageError):
    """No node has these GPUs, and nothing can add one: to wait would be of no use."""


class NotAllowed(PermanentError):
    """Rights are missing: the sentence names them and how to give them."""


class Spot(StrEnum):
    """Whether pods go to spot nodes. The chart says `prefer`, `require` and `avoid`."""

    PREFER = "prefer"
    ONLY = "only"
    NEVER = "never"


@dataclass(frozen=True)
class Offer:
    """One accelerator as a cluster has it, on nodes that are Ready and not cordoned."""

    accelerator: str
    """`unknown` where no label names it."""
    nodes: int
    total: int
    """GPUs."""
    free: int | None
    """Of those, the ones that no pod asks for; None where pods may not be listed."""
    spot: int
    """How many of `total` are on spot nodes."""
    resource: str
    """What pods ask for: `nvidia.com/gpu`."""


@dataclass(frozen=True)
class NodeMatch:
    """The nodes that pods which take one kind may run on."""

    kind: Kind
    resource: str
    labels: Mapping[str, tuple[str, ...]]
    """By node label, its values that mean this accelerator. The labels are alternatives."""
    total: int
    """GPUs on nodes that have enough of them for a pod; 0 where an autoscaler must add such nodes."""
    free: int | None
    """Of those, the ones that no pod asks for; None where pods may not be listed."""


class Finder(Protocol):
    """Somebody who knows the GPUs of a cluster: SkyPilot, or our own look at its nodes."""

    def offers(self) -> list[Offer]: ...

    def match(self, kind: Kind) -> NodeMatch:
        """Raises NoSuchShape."""
        ...


def offers(nodes: Sequence[Object], pods: Sequence[Object] | None) -> list[Offer]:
    """What a cluster has, by name; what no label names comes last."""
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
    """Where pods of this kind can go, now and, with an autoscaler, on the nodes that it would add.

    A label means the accelerator where both names, in any case, are read alike, or where the label's goes on after a
    `-`: H100 and H100-80GB are both found on NVIDIA-H100-80GB-HBM3 and, as SkyPilot has it, A100 also on A100-80GB;
    A100-80GB is not found on A100, which has less memory.

    Raises NoSuchShape where no node has it and none can be added, UsageError for an autoscaler that is not known."""
    if autoscaler is not None and autoscaler not in AUTOSCALERS:
        raise UsageError(f"there is no autoscaler {autoscaler!r}: it is one of {', '.join(AUTOSCALERS)}")
    there = _gpu_nodes(nodes)
    having = [node for node in there if node.meaning(kind)]
    fitting = [node for node in having if node.gpus >= kind.count]
    if not fitting and autoscaler is None:
        raise _no_such_shape(kind, there, having)

    sizes: Counter[str] = Counter()
    for node in fitting:
        sizes[node.resource] += node.gpus
    # A Job has pods of one resource: that of which there is most.
    resource = max(sizes, key=lambda name: sizes[name], default=NVIDIA)
    fitting = [node for node in fitting if node.resource == resource]
    found = {label for node in fitting for label in node.meaning(kind)}

    if autoscaler is not None:
        key, write = AUTOSCALERS[autoscaler]
        if value := write(canonical(kind.name)):
            found.add((key, value))
        elif not fitting:
            raise NoSuchShape(
                f"no node has {kind.count} {kind.name}, and {autoscaler} can add none: it has {', '.join(GKE_NAMES)}"
            )
    values = {key: tuple(sorted(value for name, value in found if name == key)) for key in ACCELERATOR_LABELS}
    return NodeMatch(
        kind=kind,
        resource=resource,
        labels={key: those for key, those in values.items() if those},
        total=sum(node.gpus for node in fitting),
        free=_free(fitting, pods) if fitting else 0,
    )


def find(finder: Finder, kinds: Sequence[Kind]) -> list[NodeMatch]:
    """The kinds that are there, or that an autoscaler can add; raises NoSuchShape where none is."""
    found, missing = [], []
    for kind in kinds:
        try:
            found.append(finder.match(kind))
        except NoSuchShape as error:
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def room(matches: Sequence[NodeMatch]) -> int:
    """How many pods have room now; where nobody may see what is free: how many there would be room for at all."""
    return sum((match.total if match.free is None else match.free) // match.kind.count for match in matches)


def labelled(node: Object) -> tuple[str, bool]:
    """The accelerator of a node, empty where no label names it, and whether it is a spot node: also of a node that
    takes no pods any more."""
    labels = node["metadata"].get("labels", {})
    named = next((canonical(value) for key in ACCELERATOR_LABELS if (value := labels.get(key))), "")
    return named, _is_spot(labels)


@dataclass(frozen=True)
class _GpuNode:
    """A node that takes pods and has whole GPUs."""

    name: str
    resource: str
    gpus: int
    labels: tuple[tuple[str, str], ...]
    """Those that name its GPU, in the order of ACCELERATOR_LABELS."""
    spot: bool

    @property
    def accelerator(self) -> str:
        return canonical(self.labels[0][1]) if self.labels else UNKNOWN

    def meaning(self, kind: Kind) -> list[tuple[str, str]]:
        """The labels that mean this accelerator; empty where the node has another."""
        wanted = canonical(kind.name)
        return [(key, value) for key, value in self.labels if f"{canonical(value)}-".startswith(f"{wanted}-")]


def _gpu_nodes(nodes: Iterable[Object]) -> list[_GpuNode]:
    return [found for node in nodes if (found := _gpu_node(node))]


def _gpu_node(node: Object) -> _GpuNode | None:
    """None for a node that takes no pods, has no GPU, or only slices of GPUs."""
    status, labels = node["status"], node["metadata"].get("labels", {})
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))
    gpus = {
        name: int(count)
        for name, count in status.get("allocatable", {}).items()
        if name.endswith("/gpu") and int(count) > 0
    }
    naming = tuple((key, value) for key in ACCELERATOR_LABELS if (value := labels.get(key)))
    sliced = PARTITION in labels or any(SLICE.search(value) for _, value in naming)
    if not ready or node.get("spec", {}).get("unschedulable") or not gpus or sliced:
        return None
    resource = max(gpus, key=lambda name: gpus[name])
    return _GpuNode(node["metadata"]["name"], resource, gpus[resource], naming, _is_spot(labels))


def _is_spot(labels: Object) -> bool:
    return any(labels.get(key) == value for key, value in SPOT_LABELS.items())


def _free(nodes: Sequence[_GpuNode], pods: Sequence[Object] | None) -> int | None:
    if pods is None:
        return None
    resources = {node.name: node.resource for node in nodes}
    left = {node.name: node.gpus for node in nodes}
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if name in left and pod.get("status", {}).get("phase") not in ENDED:
            left[name] -= _requested(pod["spec"], resources[name])
    # A device that has broken is not allocatable any more, but its pod may still hold it.
    return sum(max(0, count) for count in left.values())


def _requested(pod: Object, resource: str) -> int:
    """What the scheduler counts for a pod: init containers run one after the other, before all the others; sidecars run
    beside what comes after them
    (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers)."""

    def asks(container: Object) -> int:
        told = container.get("resources", {})
        return int({**told.get("limits", {}), **told.get("requests", {})}.get(resource, 0))

    most = sidecars = 0
    for container in pod.get("initContainers", []):
        most = max(most, sidecars + asks(container))
        if container.get("restartPolicy") == "Always":
            sidecars += asks(container)
    return max(most, sidecars + sum(asks(container) for container in pod["containers"]))


def _no_such_shape(kind: Kind, there: Sequence[_GpuNode], having: Sequence[_GpuNode]) -> NoSuchShape:
    missing = f"no node has {kind.count} {kind.name}"
    if having:
        most = max(node.gpus for node in having)
        return NoSuchShape(f"{missing}, the largest has {most}: ask for {most} at most, or {AUTOSCALER_ADVICE}")
    if not there:
        return NoSuchShape(
            f"{missing}: the cluster has no node with a whole GPU that is Ready and not cordoned; add one, or "
            f"{AUTOSCALER_ADVICE}"
        )
    largest: dict[str, int] = {}
    for node in there:
        largest[node.accelerator] = max(node.gpus, largest.get(node.accelerator, 0))
    named = [f"{name} ({most} on the largest node)" for name, most in sorted(largest.items()) if name != UNKNOWN]
    nameless = [node.name for node in there if not node.labels]
    advice = f"`kubectl label node {nameless[0]} {SKYPILOT}={kind.name.lower()}`" if nameless else ""
    if not named:
        return NoSuchShape(
            f"{missing} by its labels: the GPU nodes of the cluster bear none that names their GPU; label those that "
            f"have it, as in {advice}"
        )
    choice = f"{missing}; the cluster has {', '.join(named)}: choose one of these, or {AUTOSCALER_ADVICE}"
    return NoSuchShape(f"{choice}; or, if {nameless[0]} has it, say so: {advice}" if nameless else choice)
