"""Nodes that match a request, their free GPUs, and the error where no node matches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from controller.gpus.accelerators import COREWEAVE, GKE, GPU_FEATURE_DISCOVERY, KARPENTER, NEBIUS, SKYPILOT, Kind
from controller.gpus.nodes import (
    SPOT_LABELS,
    NodeMatch,
    NoMatchingNode,
    Offer,
    free_pods,
    labelled,
    match,
    offers,
    pods_for,
)
from imgsearch.errors import UsageError
from tests.controller.nodes import AMD, H100, NVIDIA, PARTS, Object, node

NODES_TPL = Path(__file__).parents[3] / "charts/imgsearch/templates/pipeline/_nodes.tpl"
L4 = Kind("L4")
SLICES = "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"
ADVICE = "set an autoscaler that can add such nodes (pipeline.autoscaler in the chart's values)"


def container(gpus: int, *, resource: str = NVIDIA, field: str = "requests", **fields: str) -> Object:
    """A container."""
    return {"name": "c", "resources": {field: {"cpu": "1", resource: str(gpus)}}, **fields}


def pod(
    *containers: Object, node_name: str | None = "gpu-1", phase: str = "Running", init: Sequence[Object] = ()
) -> Object:
    spec: Object = {"containers": list(containers), **({"initContainers": list(init)} if init else {})}
    return {"spec": {**spec, **({"nodeName": node_name} if node_name else {})}, "status": {"phase": phase}}


GPU_1 = node("gpu-1", {GKE: "nvidia-l4"})


# Which labels are looked at.


def test_every_label_of_every_node_is_looked_at() -> None:
    nodes = [
        node("a", {GKE: "nvidia-h100-80gb", GPU_FEATURE_DISCOVERY: H100}),
        node("b", {GPU_FEATURE_DISCOVERY: "NVIDIA-H100-PCIe"}),
        node("c", {SKYPILOT: "h100"}),
        node("d", {SKYPILOT: "l4", GPU_FEATURE_DISCOVERY: "NVIDIA-L4"}),
        node("e", {GKE: ""}),
        node("cpu", gpus=0),
    ]
    gpus = match(nodes, [], Kind("h100"))
    assert gpus.labels == {
        SKYPILOT: ("h100",),
        GKE: ("nvidia-h100-80gb",),
        GPU_FEATURE_DISCOVERY: (H100, "NVIDIA-H100-PCIe"),
    }
    assert (gpus.total, gpus.free) == (6, 6)


def test_a_match_does_not_depend_on_the_order_of_the_nodes() -> None:
    values = ("NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB-SHARED")
    in_order = [node(value, {GPU_FEATURE_DISCOVERY: value}) for value in values]
    for nodes in (in_order, in_order[::-1]):
        assert match(nodes, [], Kind("A100")).labels == {GPU_FEATURE_DISCOVERY: values}


def test_of_labels_that_disagree_only_those_that_mean_it_are_asked_for() -> None:
    nodes = [node(labels={SKYPILOT: "a100", GPU_FEATURE_DISCOVERY: "NVIDIA-A100-SXM4-80GB"})]
    assert match(nodes, [], Kind("A100-80GB")).labels == {GPU_FEATURE_DISCOVERY: ("NVIDIA-A100-SXM4-80GB",)}
    assert [offer.accelerator for offer in offers(nodes, [])] == ["A100"], "the first in SkyPilot's order"


# Which nodes count.


@pytest.mark.parametrize(
    "unusable",
    [
        node("x", {GKE: "nvidia-l4"}, ready="False"),
        node("x", {GKE: "nvidia-l4"}, ready="Unknown"),
        node("x", {GKE: "nvidia-l4"}, cordoned=True),
        node("x", {GKE: "nvidia-l4"}, gpus=0),
        node("x", {GKE: "nvidia-l4"}, gpus=0, other_resources={NVIDIA: "0"}),
        node("x", {GKE: "nvidia-l4"}, 0, resource=NVIDIA, other_resources={"nvidia.com/mig-1g.5gb": "7"}),
        node("x", {GKE: "nvidia-l4", GPU_FEATURE_DISCOVERY: "NVIDIA-L4-MIG-1g.5gb"}),
        node("x", {GKE: "nvidia-l4", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}),
    ],
    ids=["not-ready", "lost", "cordoned", "no-driver", "broken", "slices-by-name", "slices-by-label", "slices-on-gke"],
)
def test_a_node_without_a_whole_gpu_for_pods_does_not_count(unusable: Object) -> None:
    assert offers([unusable], []) == []
    assert offers([GPU_1, unusable], []) == offers([GPU_1], [])
    assert match([GPU_1, unusable], [], L4) == match([GPU_1], [], L4)
    with pytest.raises(NoMatchingNode, match="no node with a whole GPU that is Ready and not cordoned"):
        match([unusable], [], L4)


def test_whole_gpus_beside_slices_of_others_count() -> None:
    mixed = node(labels={GPU_FEATURE_DISCOVERY: H100}, gpus=4, other_resources={"nvidia.com/mig-1g.10gb": "28"})
    assert match([mixed], [], Kind("H100")).total == 4
    assert match([mixed], [pod(container(1, resource="nvidia.com/mig-1g.10gb"))], Kind("H100")).free == 4
    sliced = node("x", {GPU_FEATURE_DISCOVERY: SLICES}, 7)
    assert match([mixed, sliced], [], Kind("H100")).labels == {GPU_FEATURE_DISCOVERY: (H100,)}


@pytest.mark.parametrize("resource", ["gpu.intel.com/i915", "gpu.intel.com/xe"])
def test_gpus_of_intel_count(resource: str) -> None:
    intel = node(
        "intel-1", {SKYPILOT: "flex-170"}, 2, resource=resource, other_resources={f"{resource}_monitoring": "1"}
    )
    held = pod(container(1, resource=resource), node_name="intel-1")
    assert offers([intel], [held]) == [Offer("FLEX-170", nodes=1, total=2, free=1, spot=0, resource=resource)]


@pytest.mark.parametrize("resource", PARTS)
def test_parts_of_gpus_are_no_offers(resource: str) -> None:
    assert offers([node(labels={GKE: "nvidia-l4"}, resource=resource)], []) == []


# The room for pods, and the GPUs that they have held.


@pytest.mark.parametrize("resource", [NVIDIA, AMD, *PARTS, "gpu.intel.com/i915"])
def test_pods_have_room_where_their_own_resource_is(resource: str) -> None:
    nodes = [node("a", gpus=7, resource=resource), node("b", gpus=2, resource=resource), node("c", resource="b.c/d")]
    assert pods_for(nodes, {resource: 1}) == 9
    assert pods_for(nodes, {"nvidia.com/mig-3g.20gb": 1}) == 0


def test_a_node_has_room_for_whole_pods_only() -> None:
    nodes = [node("a", gpus=3), node("b", gpus=3), node("c", gpus=4, other_resources={AMD: "1"})]
    assert pods_for(nodes, {NVIDIA: 2}) == 4
    assert pods_for(nodes, {NVIDIA: 1, AMD: 1}) == 1


@pytest.mark.parametrize(
    ("labels", "resource", "accelerator"),
    [
        ({GKE: "nvidia-l4"}, NVIDIA, "L4"),
        ({SKYPILOT: "flex-170"}, "gpu.intel.com/i915", "FLEX-170"),
        ({GPU_FEATURE_DISCOVERY: H100}, "nvidia.com/mig-1g.10gb", "part of H100"),
        ({GPU_FEATURE_DISCOVERY: SLICES}, NVIDIA, "part of H100"),
        ({GKE: "nvidia-tesla-a100", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}, NVIDIA, "part of A100"),
        ({GPU_FEATURE_DISCOVERY: "NVIDIA-L4"}, "nvidia.com/gpu.shared", "part of L4"),
        ({GPU_FEATURE_DISCOVERY: "NVIDIA-L4-SHARED"}, NVIDIA, "part of L4"),
        ({}, "nvidia.com/mig-1g.10gb", ""),
    ],
)
def test_a_part_of_a_gpu_is_named_so_because_it_has_not_its_price(
    labels: dict[str, str], resource: str, accelerator: str
) -> None:
    assert labelled(labels, resource) == (accelerator, False)


def test_a_node_of_amd_leaves_those_of_nvidia_as_they_are() -> None:
    amd = node("amd-1", {SKYPILOT: "mi300x"}, 8, resource=AMD)
    assert match([amd, GPU_1], [], L4) == match([GPU_1], [], L4)
    gpus = match([GPU_1, amd], [pod(container(3, resource=AMD), node_name="amd-1")], Kind("MI300X"))
    assert (gpus.resource, gpus.total, gpus.free) == (AMD, 8, 5)


def test_one_accelerator_under_two_resources_is_taken_where_there_is_more_of_it() -> None:
    larger = node("shared", {SKYPILOT: "l4"}, 8, resource="example.com/gpu")
    gpus = match([GPU_1, larger], [], L4)
    assert (gpus.resource, gpus.total) == ("example.com/gpu", 8)
    assert gpus.labels == {SKYPILOT: ("l4",)}
    assert [(offer.resource, offer.total) for offer in offers([GPU_1, larger], [])] == [
        ("example.com/gpu", 8),
        (NVIDIA, 2),
    ]


def test_of_two_resources_of_a_node_the_one_with_more_gpus_counts() -> None:
    mixed = node(labels={SKYPILOT: "l4"}, gpus=4, other_resources={AMD: "1"})
    assert [(offer.resource, offer.total) for offer in offers([mixed], [])] == [(NVIDIA, 4)]


# What is free.


@pytest.mark.parametrize(
    ("pods", "free"),
    [
        ([], 4),
        ([pod(container(1))], 3),
        ([pod(container(1), phase="Pending")], 3),
        ([pod(container(1, field="limits"))], 3),
        ([pod(container(1), phase="Succeeded"), pod(container(1), phase="Failed")], 4),
        ([pod(container(1), node_name=None, phase="Pending")], 4),
        ([pod(container(1), node_name="elsewhere")], 4),
        ([pod({"name": "c"}), pod(container(1, resource=AMD))], 4),
        ([pod(container(1), container(2))], 1),
        ([pod(container(1)), pod(container(1))], 2),
        ([pod(container(1), init=[container(3), container(2)])], 1),
        ([pod(container(2), init=[container(1)])], 2),
        ([pod(container(1), init=[container(1, restartPolicy="Always")])], 2),
        ([pod(container(1), init=[container(1, restartPolicy="Always"), container(2)])], 1),
        ([pod(container(1), init=[container(2), container(1, restartPolicy="Always")])], 2),
        ([pod(container(4)), pod(container(4))], 0),
    ],
    ids=[
        "nobody",
        "running",
        "starting",
        "limits-alone",
        "ended",
        "waiting",
        "on-another-node",
        "without-one",
        "containers-sum",
        "pods-sum",
        "init-most",
        "init-less",
        "sidecar",
        "sidecar-beside-init",
        "sidecar-after-init",
        "more-than-there-are",
    ],
)
def test_free_is_what_no_pod_asks_for(pods: list[Object], free: int) -> None:
    nodes = [node(labels={GKE: "nvidia-l4"}, gpus=4)]
    assert match(nodes, pods, L4).free == free
    assert [offer.free for offer in offers(nodes, pods)] == [free]


def test_a_node_that_has_lost_gpus_takes_none_from_the_others() -> None:
    nodes = [node("a", {GKE: "nvidia-l4"}, 1), node("b", {GKE: "nvidia-l4"}, 2)]
    assert match(nodes, [pod(container(2), node_name="a")], L4).free == 2


def test_what_is_free_is_not_known_where_pods_may_not_be_listed() -> None:
    assert match([GPU_1], None, L4) == NodeMatch(L4, NVIDIA, {GKE: ("nvidia-l4",)}, total=2, free=None)
    assert [offer.free for offer in offers([GPU_1], None)] == [None]


def test_offers_are_by_name_and_what_no_label_names_comes_last() -> None:
    nodes = [
        node("z", gpus=1),
        node("a", {GKE: "nvidia-tesla-t4"}, 4),
        node("b", {GKE: "nvidia-tesla-t4", "cloud.google.com/gke-spot": "true"}, 2),
        node("c", {KARPENTER: "a10g", "karpenter.sh/capacity-type": "spot"}, 1),
        node("d", {KARPENTER: "a10g", "karpenter.sh/capacity-type": "on-demand"}, 1),
        node("cpu", gpus=0),
    ]
    assert offers(nodes, [pod(container(1), node_name="a"), pod(container(1), node_name="z")]) == [
        Offer("A10G", nodes=2, total=2, free=2, spot=1, resource=NVIDIA),
        Offer("T4", nodes=2, total=6, free=5, spot=2, resource=NVIDIA),
        Offer("unknown", nodes=1, total=1, free=0, spot=0, resource=NVIDIA),
    ]


@pytest.mark.parametrize("label", SPOT_LABELS)
def test_a_spot_node_is_one_by_the_label_of_any_cloud(label: str) -> None:
    spot_nodes = [node(labels={GKE: "nvidia-l4", label: SPOT_LABELS[label]})]
    assert [offer.spot for offer in offers(spot_nodes, [])] == [2]
    other_nodes = [node(labels={GKE: "nvidia-l4", label: "no"})]
    assert [offer.spot for offer in offers(other_nodes, [])] == [0]


def test_spot_nodes_have_the_labels_that_the_chart_knows() -> None:
    _, _, definition = NODES_TPL.read_text().partition('define "imgsearch.spotNodes" -}}')
    labels = yaml.safe_load(definition.partition("{{-")[0])
    assert [*SPOT_LABELS.items()] == [(label["key"], label["value"]) for label in labels]


# What the error of a missing GPU contains.


@pytest.mark.parametrize(
    ("nodes", "kind", "phrases"),
    [
        ([GPU_1], Kind("H100"), ["no node has H100; the cluster has L4: choose", ADVICE]),
        (
            [node("a", {SKYPILOT: "t4"}, 4), node("b", {SKYPILOT: "t4"}, 1), GPU_1],
            Kind("H100"),
            ["no node has H100; the cluster has L4, T4: choose", ADVICE],
        ),
        ([], L4, ["no node has L4", "no node with a whole GPU that is Ready and not cordoned", ADVICE]),
        (
            [node("gpu-7"), node("gpu-8")],
            L4,
            ["no node has L4", "`kubectl label node gpu-7 skypilot.co/accelerator=l4`"],
        ),
        (
            [GPU_1, node("gpu-8")],
            Kind("H100"),
            [
                "no node has H100; the cluster has L4: choose",
                ADVICE,
                "`kubectl label node gpu-8 skypilot.co/accelerator=h100`",
            ],
        ),
    ],
    ids=["another", "others", "no-gpu", "no-label", "one-without-label"],
)
def test_a_gpu_that_no_node_has_is_named_with_the_gpus_of_the_cluster(
    nodes: list[Object], kind: Kind, phrases: list[str]
) -> None:
    with pytest.raises(NoMatchingNode) as error:
        match(nodes, [], kind)
    message = str(error.value)
    assert [phrase for phrase in phrases if phrase not in message] == []
    for optional in ("the cluster has L4", "kubectl label", ADVICE):
        assert (optional in message) is any(optional in phrase for phrase in phrases)
    assert isinstance(error.value, UsageError)


# What an autoscaler would add.


@pytest.mark.parametrize(
    ("autoscaler", "label", "h100", "a100"),
    [
        ("gke", GKE, "nvidia-h100-80gb", "nvidia-a100-80gb"),
        ("karpenter", KARPENTER, "h100", "a100-80gb"),
        ("coreweave", COREWEAVE, "H100", "A100-80GB"),
        ("nebius", NEBIUS, "H100", "A100-80GB"),
        ("generic", SKYPILOT, "h100", "a100-80gb"),
    ],
)
@pytest.mark.parametrize("pods", [[], None])
def test_an_autoscaler_adds_nodes_with_its_own_label(
    autoscaler: str, label: str, h100: str, a100: str, pods: list[Object] | None
) -> None:
    for kind, value in ((Kind("h100"), h100), (Kind("A100-80GB"), a100)):
        gpus = match([GPU_1], pods, kind, autoscaler=autoscaler)
        assert gpus == NodeMatch(kind, NVIDIA, {label: (value,)}, total=0, free=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("L4", "nvidia-l4"),
        ("T4", "nvidia-tesla-t4"),
        ("V100", "nvidia-tesla-v100"),
        ("P100", "nvidia-tesla-p100"),
        ("P4", "nvidia-tesla-p4"),
        ("A100", "nvidia-tesla-a100"),
        ("H100-80GB", "nvidia-h100-80gb"),
        ("H100-MEGA", "nvidia-h100-mega-80gb"),
        ("H100-MEGA-80GB", "nvidia-h100-mega-80gb"),
        ("H200", "nvidia-h200-141gb"),
        ("B200", "nvidia-b200"),
    ],
)
def test_gke_has_names_of_its_own(name: str, value: str) -> None:
    assert match([], [], Kind(name), autoscaler="gke").labels == {GKE: (value,)}
    nodes = [node(labels={GKE: value})]
    assert match(nodes, [], Kind(name)).labels == {GKE: (value,)}, "and what it adds is then found"


def test_nodes_that_are_there_and_those_that_would_be_added_are_alternatives() -> None:
    gpus = match([GPU_1], [pod(container(1))], L4, autoscaler="karpenter")
    assert gpus == NodeMatch(L4, NVIDIA, {GKE: ("nvidia-l4",), KARPENTER: ("l4",)}, total=2, free=1)
    assert match([GPU_1], [], L4, autoscaler="gke") == match([GPU_1], [], L4)


def test_what_gke_does_not_have_it_cannot_add() -> None:
    with pytest.raises(NoMatchingNode, match=r"no node has A10G, .*gke.*: it has A100, A100-80GB, B200"):
        match([GPU_1], [], Kind("A10G"), autoscaler="gke")
    nodes = [node(labels={SKYPILOT: "a10g"})]
    assert match(nodes, [], Kind("A10G"), autoscaler="gke").labels == {SKYPILOT: ("a10g",)}


def test_an_autoscaler_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        match([GPU_1], [], L4, autoscaler="eks")
    assert "'eks'" in str(error.value)
    assert str(error.value).endswith("gke, karpenter, coreweave, nebius, generic")


def test_free_pods_are_free_gpus_and_all_gpus_where_the_free_ones_are_not_known() -> None:
    nodes = [GPU_1, node("b", {SKYPILOT: "t4"}, 4)]
    held = [pod(container(1))]
    assert free_pods([match(nodes, held, L4), match(nodes, held, Kind("T4"))]) == 5
    assert free_pods([match(nodes, None, L4), match(nodes, None, Kind("T4"))]) == 6
