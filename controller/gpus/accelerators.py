"""Accelerators by name: what a person calls a GPU, what the labels of nodes call it, and what an autoscaler does. Pure.

Which labels name a GPU, and what an autoscaler calls one, is what SkyPilot 0.14.1 knows
(sky/provision/kubernetes/utils.py: LABEL_FORMATTER_REGISTRY and the formatters in it, AUTOSCALER_TYPE_TO_AUTOSCALER;
sky/utils/gpu_names.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imgsearch.errors import UsageError

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


@dataclass(frozen=True)
class Kind:
    """An accelerator, and how many of it one pod takes: `L4:1`."""

    name: str
    count: int


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
        if canonical(name) in {canonical(kind.name) for kind in found}:
            raise UsageError(f"{text!r} names {name} twice: once is enough")
        found.append(Kind(name, number))
    if len({kind.count for kind in found}) > 1:
        raise UsageError(f"{text!r} has different numbers of GPUs: a pod takes as many of one kind as of any other")
    return tuple(found)


def canonical(value: str) -> str:
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
