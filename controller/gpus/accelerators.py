"""Names of accelerators: on the command line, in node labels, and of autoscalers. Pure.

The labels and the names of autoscalers are those of SkyPilot 0.14.1 (sky/provision/kubernetes/utils.py:
LABEL_FORMATTER_REGISTRY and its formatters, AUTOSCALER_TYPE_TO_AUTOSCALER; sky/utils/gpu_names.py).
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
"""Node labels for the accelerator. Where a node has several, `Offer.accelerator` is from the first."""

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
"""By autoscaler, the label of the nodes that it adds, and the function from an accelerator to the label's value."""

PARTITION = "cloud.google.com/gke-gpu-partition-size"
"""On GKE a slice has the name of its GPU; this label marks it as a slice."""
SLICE = re.compile(r"\bMIG\b", re.IGNORECASE)
SHARED = re.compile(r"\bSHARED\b", re.IGNORECASE)
"""NVIDIA's label has this suffix where several pods share each GPU (time-slicing, MPS)."""
SHARING = "cloud.google.com/gke-gpu-sharing-strategy"
"""On GKE a share has the name of its GPU; this label marks it as a share."""
WHOLE = re.compile(r"[^/]+/gpu|gpu\.intel\.com/(i915|xe)")
"""Resources whose devices are whole GPUs. All others are parts: `nvidia.com/mig-1g.5gb`, `nvidia.com/gpu.shared`,
`amd.com/cpx_nps4`. These are the names of the device plugins of NVIDIA, AMD and Intel."""
PART_OF = "part of "
"""In front of the name of a GPU of which a pod has only a part: no price list has it."""
MODEL = re.compile(
    r"\b(GB300|GB200|B300|B200|B100|GH200|H200|H100-MEGA|H100|A100|A10G|A10|A16|A30|A40|L40S|L40|L4|"
    r"A6000|A5000|A4000|V100|P100|P4000|P40|P4|T4G|T4|K80|M60)\b"
)
SMALLEST_GB = {"A100": 40, "V100": 16}
"""Models that also exist with more memory, which is then a part of the name."""
GIGABYTES = re.compile(r"\b(\d+)GB?\b")
MAKER = re.compile(r"\b(NVIDIA|TESLA|GEFORCE)-")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Kind:
    """An accelerator. A pod has one of it, because the embedder computes on one device."""

    name: str


def kinds(text: str) -> tuple[Kind, ...]:
    """Parses alternatives such as `L4:1,A10G`. The number of GPUs of one pod is optional, and only 1 is valid.

    Raises UsageError."""
    parsed: list[Kind] = []
    for part in text.split(","):
        name, colon, count = part.strip().partition(":")
        number = int(count) if re.fullmatch(r"[0-9]{1,4}", count) else 0 if colon else 1
        if not NAME.fullmatch(name) or number < 1:
            raise UsageError(f"invalid accelerator {part.strip()!r}: give the name of a GPU, as in L4 or L4:1")
        if number > 1:
            raise UsageError(one_gpu(f"accelerator {part.strip()!r}", name))
        if SLICE.search(name):
            raise UsageError(f"invalid accelerator {name}: it is a slice of a GPU; give the name of the whole GPU")
        if canonical(name) in {canonical(kind.name) for kind in parsed}:
            raise UsageError(f"invalid accelerators {text!r}: {name} is in it twice")
        parsed.append(Kind(name))
    return tuple(parsed)


def one_gpu(given: str, valid: str) -> str:
    """The sentence about a request for several GPUs: what was `given`, and a `valid` one."""
    return f"invalid {given}: a pod uses one GPU; use {valid}, and run more pods at a time with --parallelism"


def canonical(value: str) -> str:
    """The canonical name of an accelerator, from a label or the command line: `L4`, `A100-80GB`. It contains the memory
    only where a smaller one of that model exists. An unknown model keeps its name without the manufacturer."""
    text = value.upper().replace("_", "-")
    found = MODEL.search(text)
    if found is None:
        return MAKER.sub("", text).replace("RTX-", "RTX")
    model = found[1]
    size = GIGABYTES.search(text)
    if size is None or int(size[1]) <= SMALLEST_GB.get(model, int(size[1])):
        return model
    return f"{model}-{size[1]}GB"
