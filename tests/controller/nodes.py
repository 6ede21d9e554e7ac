"""Nodes with GPUs, as the API server lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
PARTS = ("nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared", "amd.com/cpx_nps4")
"""Parts of GPUs: a slice, a share in time, and a compute partition."""
H100 = "NVIDIA-H100-80GB-HBM3"
"""What NVIDIA's own label calls one."""


def node(
    name: str = "gpu-1",
    labels: Mapping[str, str] | None = None,
    gpus: int = 2,
    *,
    resource: str = NVIDIA,
    ready: str = "True",
    cordoned: bool = False,
    other_resources: Mapping[str, str] | None = None,
) -> Object:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {
                "cpu": "8",
                "memory": "32Gi",
                **({resource: str(gpus)} if gpus else {}),
                **(other_resources or {}),
            },
            "conditions": [
                {"type": "DiskPressure", "status": "False" if ready == "True" else "True"},
                {"type": "Ready", "status": ready},
            ],
        },
    }
