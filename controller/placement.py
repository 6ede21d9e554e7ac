"""Which nodes have the GPUs that a run asks for, and what a pod must say to get onto them. Pure.

Nodes, Pods and PodTemplateSpecs are core/v1 objects as JSON. Which labels name a GPU, and what an autoscaler calls one,
is what SkyPilot 0.14.1 knows (sky/provision/kubernetes/utils.py: LABEL_FORMATTER_REGISTRY and the formatters in it,
AUTOSCALER_TYPE_TO_AUTOSCALER; sky/utils/gpu_names.py). Unlike it, this looks at every label of every node, since a
cluster may mix them, and counts only whole GPUs of nodes that take pods.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any, Protocol

from imgsearch import labels
from imgsearch.errors import PermanentError, TemporaryError, UsageError

Object = Mapping[str, Any]

SKYPILOT = "skypilot.co/accelerator"
GKE = "cloud.google.com/gke-accelerator"
KARPENTER = "karpenter.k8s.aws/instance-gpu-name"
GPU_FEATURE_DISCOVERY = "nvidia.com/gpu.product"
COREWEAVE = "gpu.nvidia.com/class"
NEBIUS = "nebius.com/gpu-name"
ACCELERATOR_LABELS = (SKYPILOT, GKE, KARPENTER, GPU_FEATURE_DISCOVERY, COREWEAVE, NEBIUS)
"""The labels that name a node's GPU. Where a node has several, `Offer.accelerator` is from the first."""

GKE_NAMES = {
    "A100": "nvidia-tesla-a100",
    "A100-80GB": "nvidia-a100-80gb",
    "B200": "nvidia-b200",
    "H100": "nvidia-h100-80gb",
    "H100-MEGA": "nvidia-h100-mega-80gb",
    "H200": "nvidia-h200-141gb",
    "L4": "nvidia-l4",
    "P100": "nvidia-tesla-p100",
    "P4": "nvidia-tesla-p4",
    "T4": "nvidia-tesla-t4",
    "V100": "nvidia-tesla-v100",
}
AUTOSCALERS: Mapping[str, tuple[str, Callable[[str], str | None]]] = {
    "gke": (GKE, GKE_NAMES.get),
    "karpenter": (KARPENTER, str.lower),
    "coreweave": (COREWEAVE, str.upper),
    "nebius": (NEBIUS, str.upper),
    "generic": (SKYPILOT, str.lower),
}
"""The label that each puts on the nodes it adds, and how it writes an accelerator there."""

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
PARTITION = "cloud.google.com/gke-gpu-partition-size"
"""On GKE a slice is called like the GPU it is of, and this label tells that it is one."""
SLICE = re.compile(r"\bMIG\b", re.IGNORECASE)
MODEL = re.compile(
    r"\b(GB300|GB200|B300|B200|B100|GH200|H200|H100-MEGA|H100|A100|A10G|A10|A16|A30|A40|L40S|L40|L4|"
    r"A6000|A5000|A4000|V100|P100|P4000|P40|P4|T4G|T4|K80|M60)\b"
)
SMALLEST_GB = {"A100": 40, "V100": 16}
"""Models that come with more memory, too: which then is a part of the name."""
GIGABYTES = re.compile(r"\b(\d+)GB?\b")
MAKER = re.compile(r"\b(NVIDIA|TESLA|GEFORCE)-")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
AUTOSCALER_ADVICE = "set an autoscaler that can add such nodes (pipeline.autoscaler in the chart's values)"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


class NoSuchShape(UsageError):
    """No node has these GPUs, and nothing can add one: to wait would be of no use."""


class NotAllowed(PermanentError):
    """Rights are missing: the sentence names them and how to give them."""


class ProvisioningFailed(TemporaryError):
    """Machines did not become a cluster."""


@dataclass(frozen=True)
class Kind:
    """An accelerator, and how many of it one pod takes: `L4:1`."""

    name: str
    count: int


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
class Placement:
    """Where pods that take one kind can go."""

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

    def placement(self, kind: Kind) -> Placement:
        """Raises NoSuchShape."""
        ...


def kinds(text: str) -> tuple[Kind, ...]:
    """Reads `L4:1,A10G`: alternatives, each with the GPUs of one pod, 1 where no number is given.

    Raises UsageError, also where the numbers differ: all pods of a Job are alike."""
    found: list[Kind] = []
    for part in text.split(","):
        name, colon, count = part.strip().partition(":")
        number = int(count) if re.fullmatch(r"[0-9]{1,4}", count) else 0 if colon else 1
        if not NAME.fullmatch(name) or number < 1:
            raise UsageError(f"{part.strip()!r} is no accelerator: write its name and how many a pod takes, as in L4:1")
        if SLICE.search(name):
            raise UsageError(f"{name} is a slice of a GPU: name the whole one")
        if _read(name) in {_read(kind.name) for kind in found}:
            raise UsageError(f"{text!r} names {name} twice: once is enough")
        found.append(Kind(name, number))
    if len({kind.count for kind in found}) > 1:
        raise UsageError(f"{text!r} has different numbers of GPUs: a pod takes as many of one kind as of any other")
    return tuple(found)


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


def placement(
    nodes: Sequence[Object], pods: Sequence[Object] | None, kind: Kind, *, autoscaler: str | None = None
) -> Placement:
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
        if value := write(_read(kind.name)):
            found.add((key, value))
        elif not fitting:
            raise NoSuchShape(
                f"no node has {kind.count} {kind.name}, and {autoscaler} can add none: it has {', '.join(GKE_NAMES)}"
            )
    values = {key: tuple(sorted(value for name, value in found if name == key)) for key in ACCELERATOR_LABELS}
    return Placement(
        kind=kind,
        resource=resource,
        labels={key: those for key, those in values.items() if those},
        total=sum(node.gpus for node in fitting),
        free=_free(fitting, pods) if fitting else 0,
    )


def placed(template: Object, placements: Sequence[Placement], *, spot: Spot | None) -> dict[str, Any]:
    """The PodTemplateSpec with its pods on any of `placements`, as the chart writes it for the same wishes: limits of
    the first container, tolerations and node affinity.

    What the template itself says of accelerators gives way to the placements, and what it says of spot nodes to `spot`;
    everything else stays, and is required as well. Without placements its GPUs stay as they are, and with `spot` None
    its spot nodes.

    Raises UsageError where the placements are not of one resource."""
    resources = {each.resource: each.kind.name for each in placements}
    if len(resources) > 1:
        told = " and ".join(f"{name} is {resource}" for resource, name in resources.items())
        raise UsageError(
            f"{told}: pods of one Job take GPUs of one resource, so choose accelerators that have the same"
        )
    made = copy.deepcopy(dict(template))
    spec = made["spec"]
    decided: set[str] = set()
    tolerations: list[Object] = spec.get("tolerations", [])
    if placements:
        resource, count = placements[0].resource, placements[0].kind.count
        _ask_for(spec["containers"][0], resource, count)
        decided.update(ACCELERATOR_LABELS, *(each.labels for each in placements))
        mine: Object = {"key": resource, "operator": "Exists", "effect": "NoSchedule"}
        tolerations = [*(each for each in tolerations if each != mine), mine]
    if spot is not None:
        decided.update(SPOT_LABELS)
        theirs = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in SPOT_LABELS.items()
        ]
        tolerations = [each for each in tolerations if each not in theirs]
        tolerations += [] if spot is Spot.NEVER else theirs

    affinity = spec.get("affinity", {})
    node = _node_affinity(affinity.get("nodeAffinity", {}), decided, placements, spot)
    rewritten = {
        "tolerations": tolerations,
        "affinity": {name: each for name, each in {**affinity, "nodeAffinity": node}.items() if each},
        # A node selector is required, too, and would contradict.
        "nodeSelector": {key: value for key, value in spec.get("nodeSelector", {}).items() if key not in decided},
    }
    for name, value in rewritten.items():
        spec.pop(name, None)
        if value:
            spec[name] = value
    return made


def noted(template: Object, placements: Sequence[Placement], *, spot: Spot | None) -> dict[str, Any]:
    """The PodTemplateSpec with annotations that say what was asked for: its price depends on it."""
    notes = {labels.ACCELERATOR: placements[0].kind.name if len(placements) == 1 else None, labels.SPOT: spot}
    about = template.get("metadata") or {}
    told = {**(about.get("annotations") or {}), **{key: str(note) for key, note in notes.items() if note}}
    return {**template, "metadata": {**about, "annotations": told}}


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
        return _read(self.labels[0][1]) if self.labels else UNKNOWN

    def meaning(self, kind: Kind) -> list[tuple[str, str]]:
        """The labels that mean this accelerator; empty where the node has another."""
        wanted = _read(kind.name)
        return [(key, value) for key, value in self.labels if f"{_read(value)}-".startswith(f"{wanted}-")]


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
    spot = any(labels.get(key) == value for key, value in SPOT_LABELS.items())
    return _GpuNode(node["metadata"]["name"], resource, gpus[resource], naming, spot)


def _read(value: str) -> str:
    """The accelerator that a person or a label means: `L4`, `A100-80GB`, whatever stands around it. The memory is left
    out where there is no smaller one of that model; a model that is not known keeps all but its maker."""
    text = value.upper().replace("_", "-")
    found = MODEL.search(text)
    if found is None:
        return MAKER.sub("", text).replace("RTX-", "RTX")
    model = found[1]
    size = GIGABYTES.search(text)
    if size is None or int(size[1]) <= SMALLEST_GB.get(model, int(size[1])):
        return model
    return f"{model}-{size[1]}GB"


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


def _ask_for(container: dict[str, Any], resource: str, count: int) -> None:
    """Sets the only GPU limit of a container; the API server makes the request of it."""
    asked = container.setdefault("resources", {})
    for part in asked.keys() & {"limits", "requests"}:
        asked[part] = {name: value for name, value in asked[part].items() if not name.endswith("/gpu")}
    asked["limits"] = {**asked.get("limits", {}), resource: count}


def _node_affinity(
    old: Object, decided: Set[str], placements: Sequence[Placement], spot: Spot | None
) -> dict[str, Any]:
    """Terms are alternatives, expressions of one go together
    (https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity)."""
    labels: dict[str, list[str]] = {}
    for each in placements:
        for key, values in each.labels.items():
            labels[key] = list(dict.fromkeys([*labels.get(key, []), *values]))
    spots = [_expression(key, "In", [value]) for key, value in SPOT_LABELS.items()]
    others = [_expression(key, "NotIn", [value]) for key, value in SPOT_LABELS.items()]

    before = [_without(term, decided) for term in old.get(REQUIRED, {}).get("nodeSelectorTerms", [])] or [{}]
    only = [[each] for each in spots] if spot is Spot.ONLY else [[]]
    wanted = [[_expression(key, "In", values)] for key, values in labels.items()] or [[]]
    never = others if spot is Spot.NEVER else []
    required: list[dict[str, Any]] = []
    for term, one, accelerator in product(before, only, wanted):
        expressions = [*term.get("matchExpressions", []), *one, *accelerator, *never]
        combined = {**term, **({"matchExpressions": expressions} if expressions else {})}
        if combined not in required:
            required.append(copy.deepcopy(combined))  # YAML would print what they share as references

    preferred = []
    for each in old.get(PREFERRED, []):
        # Of accelerators that are all wanted, the template may still prefer one.
        if preference := _without(each["preference"], decided & SPOT_LABELS.keys()):
            preferred.append({**each, "preference": preference})
    if spot is Spot.PREFER:
        preferred += [{"weight": 100, "preference": {"matchExpressions": [each]}} for each in spots]
    return {
        # A term that has lost all of its expressions asks for nothing, and neither do its alternatives then.
        **({REQUIRED: {"nodeSelectorTerms": required}} if {} not in required else {}),
        **({PREFERRED: preferred} if preferred else {}),
    }


def _expression(key: str, operator: str, values: list[str]) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": values}


def _without(term: Object, keys: Set[str]) -> dict[str, Any]:
    """A NodeSelectorTerm without its expressions on these labels."""
    left = [each for each in term.get("matchExpressions", []) if each["key"] not in keys]
    rest = {name: value for name, value in term.items() if name != "matchExpressions"}
    return {**rest, **({"matchExpressions": left} if left else {})}
