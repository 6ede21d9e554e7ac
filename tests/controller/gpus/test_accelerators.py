"""What a person asks for, and what the labels of nodes mean."""

from __future__ import annotations

import pytest

from controller.gpus.accelerators import COREWEAVE, GKE, GPU_FEATURE_DISCOVERY, KARPENTER, NEBIUS, SKYPILOT, Kind, kinds
from controller.gpus.nodes import NoMatchingNode, match, offers
from imgsearch.errors import UsageError
from tests.controller.nodes import H100, node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L4:1", (Kind("L4"),)),
        ("L4", (Kind("L4"),)),
        ("L4:1,A10G", (Kind("L4"), Kind("A10G"))),
        (" A100-80GB:1 , H100:1 ", (Kind("A100-80GB"), Kind("H100"))),
        ("A100,A100-80GB", (Kind("A100"), Kind("A100-80GB"))),
    ],
)
def test_kinds_are_read(text: str, expected: tuple[Kind, ...]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "accelerator '': "),
        ("L4:1,", "invalid accelerator '': "),
        ("L4:", "invalid accelerator 'L4:': "),
        ("L4:0", "invalid accelerator 'L4:0': "),
        ("L4:0.5", "invalid accelerator 'L4:0.5': "),
        ("L4:-1", "invalid accelerator 'L4:-1': "),
        (":2", "invalid accelerator ':2': "),
        ("L4 T4", "invalid accelerator 'L4 T4': "),
        ("L4-", "invalid accelerator 'L4-': "),
        (
            "A10G,H100:8",
            "invalid accelerator 'H100:8': a pod uses one GPU; use H100, and run more pods at a time with "
            "--parallelism",
        ),
        ("L4,l4", "l4 is in it twice"),
        ("H100,nvidia-h100-80gb", "nvidia-h100-80gb is in it twice"),
        ("A100-MIG-1g.5gb", "A100-MIG-1g.5gb: it is a slice of a GPU"),
    ],
)
def test_what_is_no_kind_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        kinds(text)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("label", "value", "name"),
    [
        (SKYPILOT, "l4", "L4"),
        (SKYPILOT, "a100-80gb", "A100-80GB"),
        (SKYPILOT, "h100-mega-80gb", "H100-MEGA"),
        (SKYPILOT, "rtx6000-ada", "RTX6000-ADA"),
        (SKYPILOT, "mi300x", "MI300X"),
        (GKE, "nvidia-l4", "L4"),
        (GKE, "nvidia-tesla-t4", "T4"),
        (GKE, "nvidia-tesla-a100", "A100"),
        (GKE, "nvidia-a100-80gb", "A100-80GB"),
        (GKE, "nvidia-h100-80gb", "H100"),
        (GKE, "nvidia-h100-mega-80gb", "H100-MEGA"),
        (GKE, "nvidia-h200-141gb", "H200"),
        (KARPENTER, "a10g", "A10G"),
        (KARPENTER, "l40s", "L40S"),
        (GPU_FEATURE_DISCOVERY, H100, "H100"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-H100-PCIe", "H100"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-GH200-480GB", "GH200"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-A100-SXM4-40GB", "A100"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-A100-80GB-PCIe", "A100-80GB"),
        (GPU_FEATURE_DISCOVERY, "Tesla-V100-SXM2-16GB", "V100"),
        (GPU_FEATURE_DISCOVERY, "Tesla-V100-SXM2-32GB", "V100-32GB"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-L40", "L40"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-A10", "A10"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-RTX-A6000", "A6000"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-RTX-6000-Ada-Generation", "RTX6000-ADA-GENERATION"),
        (GPU_FEATURE_DISCOVERY, "NVIDIA-GeForce-RTX-3070", "RTX3070"),
        (COREWEAVE, "H100_NVLINK_80GB", "H100"),
        (COREWEAVE, "RTX_A6000", "A6000"),
        (NEBIUS, "H200", "H200"),
    ],
)
def test_a_label_is_read_as_skypilots_name_of_the_accelerator(label: str, value: str, name: str) -> None:
    nodes = [node(labels={label: value})]
    assert [offer.accelerator for offer in offers(nodes, [])] == [name]
    for requested in (name, name.lower(), value):
        assert match(nodes, [], Kind(requested)).labels == {label: (value,)}


@pytest.mark.parametrize(
    ("requested", "value", "fits"),
    [
        ("H100", "h100-80gb", True),
        ("H100-80GB", "h100", True),
        ("H100", "h100-mega-80gb", True),
        ("H100-MEGA", "h100", False),
        ("A100", "a100-80gb", True),
        ("A100-80GB", "a100", False),
        ("A100-80G", "a100", False),
        ("V100-32GB", "v100", False),
        ("RTX6000-Ada", "rtx6000-ada-generation", True),
        ("L4", "l40s", False),
        ("L40", "l40s", False),
        ("A10", "a10g", False),
        ("A10", "a100", False),
        ("RTX", "rtx3070", False),
    ],
)
def test_a_longer_name_fits_and_never_less_memory(requested: str, value: str, fits: bool) -> None:
    nodes = [node(labels={SKYPILOT: value})]
    if fits:
        assert match(nodes, [], Kind(requested)).total == 2
    else:
        with pytest.raises(NoMatchingNode):
            match(nodes, [], Kind(requested))
