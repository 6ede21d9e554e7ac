"""Which nodes fit, what is free on them, what a person is told where none does, and what pods then say."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.placement import (
    COREWEAVE,
    GKE,
    GPU_FEATURE_DISCOVERY,
    KARPENTER,
    NEBIUS,
    SKYPILOT,
    SPOT_LABELS,
    Kind,
    NoSuchShape,
    Offer,
    Placement,
    Spot,
    kinds,
    noted,
    offers,
    placed,
    placement,
)
from imgsearch.errors import UsageError

Object = dict[str, Any]

NODES_TPL = Path(__file__).parents[2] / "charts/imgsearch/templates/pipeline/_nodes.tpl"
NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
L4 = Kind("L4", 1)
H100 = "NVIDIA-H100-80GB-HBM3"
SLICES = "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"
ADVICE = "set an autoscaler that can add such nodes (pipeline.autoscaler in the chart's values)"


def node(
    name: str = "gpu-1",
    labels: Mapping[str, str] | None = None,
    gpus: int = 2,
    *,
    resource: str = NVIDIA,
    ready: str = "True",
    cordoned: bool = False,
    also: Mapping[str, str] | None = None,
) -> Object:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", **({resource: str(gpus)} if gpus else {}), **(also or {})},
            "conditions": [
                {"type": "DiskPressure", "status": "False" if ready == "True" else "True"},
                {"type": "Ready", "status": ready},
            ],
        },
    }


def asking(gpus: int, *, resource: str = NVIDIA, part: str = "requests", **more: str) -> Object:
    """A container."""
    return {"name": "c", "resources": {part: {"cpu": "1", resource: str(gpus)}}, **more}


def pod(*containers: Object, on: str | None = "gpu-1", phase: str = "Running", init: Sequence[Object] = ()) -> Object:
    spec: Object = {"containers": list(containers), **({"initContainers": list(init)} if init else {})}
    return {"spec": {**spec, **({"nodeName": on} if on else {})}, "status": {"phase": phase}}


GPU_1 = node("gpu-1", {GKE: "nvidia-l4"})


# What a person asks for.


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("L4:1", (Kind("L4", 1),)),
        ("L4", (Kind("L4", 1),)),
        ("L4:1,A10G", (Kind("L4", 1), Kind("A10G", 1))),
        (" A100-80GB:8 , H100:8 ", (Kind("A100-80GB", 8), Kind("H100", 8))),
        ("A100,A100-80GB", (Kind("A100", 1), Kind("A100-80GB", 1))),
    ],
)
def test_kinds_are_read(text: str, read: tuple[Kind, ...]) -> None:
    assert kinds(text) == read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no accelerator: write its name and how many a pod takes, as in L4:1"),
        ("L4:1,", "'' is no accelerator"),
        ("L4:", "'L4:' is no accelerator"),
        ("L4:0", "'L4:0' is no accelerator"),
        ("L4:0.5", "'L4:0.5' is no accelerator"),
        ("L4:-1", "'L4:-1' is no accelerator"),
        (":2", "':2' is no accelerator"),
        ("L4 T4", "'L4 T4' is no accelerator"),
        ("L4-", "'L4-' is no accelerator"),
        ("L4:1,A10G:2", "has different numbers of GPUs: a pod takes as many of one kind as of any other"),
        ("L4:2,A10G", "has different numbers of GPUs"),
        ("L4,l4", "names l4 twice"),
        ("H100,nvidia-h100-80gb", "names nvidia-h100-80gb twice"),
        ("A100-MIG-1g.5gb", "A100-MIG-1g.5gb is a slice of a GPU: name the whole one"),
    ],
)
def test_what_is_no_kind_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        kinds(text)
    assert told in str(refused.value)


# What labels mean.


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
    there = [node(labels={label: value})]
    assert [offer.accelerator for offer in offers(there, [])] == [name]
    for asked in (name, name.lower(), value):
        assert placement(there, [], Kind(asked, 1)).labels == {label: (value,)}


@pytest.mark.parametrize(
    ("asked", "value", "fits"),
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
def test_a_longer_name_fits_and_never_less_memory(asked: str, value: str, fits: bool) -> None:
    there = [node(labels={SKYPILOT: value})]
    if fits:
        assert placement(there, [], Kind(asked, 1)).total == 2
    else:
        with pytest.raises(NoSuchShape):
            placement(there, [], Kind(asked, 1))


def test_every_label_of_every_node_is_looked_at() -> None:
    there = [
        node("a", {GKE: "nvidia-h100-80gb", GPU_FEATURE_DISCOVERY: H100}),
        node("b", {GPU_FEATURE_DISCOVERY: "NVIDIA-H100-PCIe"}),
        node("c", {SKYPILOT: "h100"}),
        node("d", {SKYPILOT: "l4", GPU_FEATURE_DISCOVERY: "NVIDIA-L4"}),
        node("e", {GKE: ""}),
        node("cpu", gpus=0),
    ]
    found = placement(there, [], Kind("h100", 1))
    assert found.labels == {
        SKYPILOT: ("h100",),
        GKE: ("nvidia-h100-80gb",),
        GPU_FEATURE_DISCOVERY: (H100, "NVIDIA-H100-PCIe"),
    }
    assert (found.total, found.free) == (6, 6)


def test_a_placement_does_not_depend_on_the_order_of_the_nodes() -> None:
    values = ("NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB-SHARED")
    there = [node(value, {GPU_FEATURE_DISCOVERY: value}) for value in values]
    for nodes in (there, there[::-1]):
        assert placement(nodes, [], Kind("A100", 1)).labels == {GPU_FEATURE_DISCOVERY: values}


def test_of_labels_that_disagree_only_those_that_mean_it_are_asked_for() -> None:
    there = [node(labels={SKYPILOT: "a100", GPU_FEATURE_DISCOVERY: "NVIDIA-A100-SXM4-80GB"})]
    assert placement(there, [], Kind("A100-80GB", 1)).labels == {GPU_FEATURE_DISCOVERY: ("NVIDIA-A100-SXM4-80GB",)}
    assert [offer.accelerator for offer in offers(there, [])] == ["A100"], "the first in SkyPilot's order"


# Which nodes count.


@pytest.mark.parametrize(
    "useless",
    [
        node("x", {GKE: "nvidia-l4"}, ready="False"),
        node("x", {GKE: "nvidia-l4"}, ready="Unknown"),
        node("x", {GKE: "nvidia-l4"}, cordoned=True),
        node("x", {GKE: "nvidia-l4"}, gpus=0),
        node("x", {GKE: "nvidia-l4"}, gpus=0, also={NVIDIA: "0"}),
        node("x", {GKE: "nvidia-l4"}, 0, resource=NVIDIA, also={"nvidia.com/mig-1g.5gb": "7"}),
        node("x", {GKE: "nvidia-l4", GPU_FEATURE_DISCOVERY: "NVIDIA-L4-MIG-1g.5gb"}),
        node("x", {GKE: "nvidia-l4", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}),
    ],
    ids=["not-ready", "lost", "cordoned", "no-driver", "broken", "slices-by-name", "slices-by-label", "slices-on-gke"],
)
def test_a_node_without_a_whole_gpu_for_pods_does_not_count(useless: Object) -> None:
    assert offers([useless], []) == []
    assert offers([GPU_1, useless], []) == offers([GPU_1], [])
    assert placement([GPU_1, useless], [], L4) == placement([GPU_1], [], L4)
    with pytest.raises(NoSuchShape, match="no node with a whole GPU that is Ready and not cordoned"):
        placement([useless], [], L4)


def test_whole_gpus_beside_slices_of_others_count() -> None:
    mixed = node(labels={GPU_FEATURE_DISCOVERY: H100}, gpus=4, also={"nvidia.com/mig-1g.10gb": "28"})
    assert placement([mixed], [], Kind("H100", 4)).total == 4
    sliced = node("x", {GPU_FEATURE_DISCOVERY: SLICES}, 7)
    assert placement([mixed, sliced], [], Kind("H100", 1)).labels == {GPU_FEATURE_DISCOVERY: (H100,)}


def test_only_nodes_with_enough_of_them_for_a_pod_count() -> None:
    there = [
        node("small", {GPU_FEATURE_DISCOVERY: "NVIDIA-H100-PCIe"}, 2),
        node("large", {GPU_FEATURE_DISCOVERY: H100}, 8),
        node("other", {GPU_FEATURE_DISCOVERY: H100}, 4),
    ]
    found = placement(there, [pod(asking(1), on="small"), pod(asking(3), on="large")], Kind("H100", 4))
    assert found == Placement(Kind("H100", 4), NVIDIA, {GPU_FEATURE_DISCOVERY: (H100,)}, total=12, free=9)


def test_a_node_of_amd_leaves_those_of_nvidia_as_they_are() -> None:
    amd = node("amd-1", {SKYPILOT: "mi300x"}, 8, resource=AMD)
    assert placement([amd, GPU_1], [], L4) == placement([GPU_1], [], L4)
    found = placement([GPU_1, amd], [pod(asking(3, resource=AMD), on="amd-1")], Kind("MI300X", 8))
    assert (found.resource, found.total, found.free) == (AMD, 8, 5)


def test_one_accelerator_under_two_resources_is_taken_where_there_is_more_of_it() -> None:
    other = node("shared", {SKYPILOT: "l4"}, 8, resource="example.com/gpu")
    found = placement([GPU_1, other], [], L4)
    assert (found.resource, found.total) == ("example.com/gpu", 8)
    assert found.labels == {SKYPILOT: ("l4",)}
    assert [(offer.resource, offer.total) for offer in offers([GPU_1, other], [])] == [
        ("example.com/gpu", 8),
        (NVIDIA, 2),
    ]


def test_of_two_resources_of_a_node_the_one_with_more_gpus_counts() -> None:
    both = node(labels={SKYPILOT: "l4"}, gpus=4, also={AMD: "1"})
    assert [(offer.resource, offer.total) for offer in offers([both], [])] == [(NVIDIA, 4)]


# What is free.


@pytest.mark.parametrize(
    ("pods", "free"),
    [
        ([], 4),
        ([pod(asking(1))], 3),
        ([pod(asking(1), phase="Pending")], 3),
        ([pod(asking(1, part="limits"))], 3),
        ([pod(asking(1), phase="Succeeded"), pod(asking(1), phase="Failed")], 4),
        ([pod(asking(1), on=None, phase="Pending")], 4),
        ([pod(asking(1), on="elsewhere")], 4),
        ([pod({"name": "c"}), pod(asking(1, resource=AMD))], 4),
        ([pod(asking(1), asking(2))], 1),
        ([pod(asking(1)), pod(asking(1))], 2),
        ([pod(asking(1), init=[asking(3), asking(2)])], 1),
        ([pod(asking(2), init=[asking(1)])], 2),
        ([pod(asking(1), init=[asking(1, restartPolicy="Always")])], 2),
        ([pod(asking(1), init=[asking(1, restartPolicy="Always"), asking(2)])], 1),
        ([pod(asking(1), init=[asking(2), asking(1, restartPolicy="Always")])], 2),
        ([pod(asking(4)), pod(asking(4))], 0),
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
    there = [node(labels={GKE: "nvidia-l4"}, gpus=4)]
    assert placement(there, pods, L4).free == free
    assert [offer.free for offer in offers(there, pods)] == [free]


def test_a_node_that_has_lost_gpus_takes_none_from_the_others() -> None:
    there = [node("a", {GKE: "nvidia-l4"}, 1), node("b", {GKE: "nvidia-l4"}, 2)]
    assert placement(there, [pod(asking(2), on="a")], L4).free == 2


def test_what_is_free_is_not_known_where_pods_may_not_be_listed() -> None:
    assert placement([GPU_1], None, L4) == Placement(L4, NVIDIA, {GKE: ("nvidia-l4",)}, total=2, free=None)
    assert [offer.free for offer in offers([GPU_1], None)] == [None]


def test_offers_are_by_name_and_what_no_label_names_comes_last() -> None:
    there = [
        node("z", gpus=1),
        node("a", {GKE: "nvidia-tesla-t4"}, 4),
        node("b", {GKE: "nvidia-tesla-t4", "cloud.google.com/gke-spot": "true"}, 2),
        node("c", {KARPENTER: "a10g", "karpenter.sh/capacity-type": "spot"}, 1),
        node("d", {KARPENTER: "a10g", "karpenter.sh/capacity-type": "on-demand"}, 1),
        node("cpu", gpus=0),
    ]
    assert offers(there, [pod(asking(1), on="a"), pod(asking(1), on="z")]) == [
        Offer("A10G", nodes=2, total=2, free=2, spot=1, resource=NVIDIA),
        Offer("T4", nodes=2, total=6, free=5, spot=2, resource=NVIDIA),
        Offer("unknown", nodes=1, total=1, free=0, spot=0, resource=NVIDIA),
    ]


@pytest.mark.parametrize("label", SPOT_LABELS)
def test_a_spot_node_is_one_by_the_label_of_any_cloud(label: str) -> None:
    there = [node(labels={GKE: "nvidia-l4", label: SPOT_LABELS[label]})]
    assert [offer.spot for offer in offers(there, [])] == [2]
    other = [node(labels={GKE: "nvidia-l4", label: "no"})]
    assert [offer.spot for offer in offers(other, [])] == [0]


def test_spot_nodes_have_the_labels_that_the_chart_knows() -> None:
    _, _, rest = NODES_TPL.read_text().partition('define "imgsearch.spotNodes" -}}')
    listed = yaml.safe_load(rest.partition("{{-")[0])
    assert [*SPOT_LABELS.items()] == [(each["key"], each["value"]) for each in listed]


# What a person is told.


@pytest.mark.parametrize(
    ("nodes", "kind", "told"),
    [
        (
            [GPU_1],
            Kind("H100", 8),
            f"no node has 8 H100; the cluster has L4 (2 on the largest node): choose one of these, or {ADVICE}",
        ),
        (
            [node("a", {SKYPILOT: "t4"}, 4), node("b", {SKYPILOT: "t4"}, 1), GPU_1],
            Kind("H100", 1),
            "no node has 1 H100; the cluster has L4 (2 on the largest node), T4 (4 on the largest node): choose one of "
            f"these, or {ADVICE}",
        ),
        (
            [GPU_1, node("gpu-2", {GKE: "nvidia-l4"}, 1)],
            Kind("l4", 4),
            f"no node has 4 l4, the largest has 2: ask for 2 at most, or {ADVICE}",
        ),
        (
            [],
            L4,
            "no node has 1 L4: the cluster has no node with a whole GPU that is Ready and not cordoned; add one, or "
            f"{ADVICE}",
        ),
        (
            [node("gpu-7"), node("gpu-8")],
            L4,
            "no node has 1 L4 by its labels: the GPU nodes of the cluster bear none that names their GPU; label those "
            "that have it, as in `kubectl label node gpu-7 skypilot.co/accelerator=l4`",
        ),
        (
            [GPU_1, node("gpu-8")],
            Kind("H100", 1),
            f"no node has 1 H100; the cluster has L4 (2 on the largest node): choose one of these, or {ADVICE}; or, if "
            "gpu-8 has it, say so: `kubectl label node gpu-8 skypilot.co/accelerator=h100`",
        ),
    ],
    ids=["another", "others", "too-many", "no-gpu", "no-label", "one-without-label"],
)
def test_a_gpu_that_no_node_has_is_named_with_what_there_is(nodes: list[Object], kind: Kind, told: str) -> None:
    with pytest.raises(NoSuchShape) as refused:
        placement(nodes, [], kind)
    assert str(refused.value) == told
    assert isinstance(refused.value, UsageError)


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
    for kind, value in ((Kind("h100", 8), h100), (Kind("A100-80GB", 8), a100)):
        found = placement([GPU_1], pods, kind, autoscaler=autoscaler)
        assert found == Placement(kind, NVIDIA, {label: (value,)}, total=0, free=0)


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
    assert placement([], [], Kind(name, 1), autoscaler="gke").labels == {GKE: (value,)}
    there = [node(labels={GKE: value})]
    assert placement(there, [], Kind(name, 1)).labels == {GKE: (value,)}, "and what it adds is then found"


def test_nodes_that_are_there_and_those_that_would_be_added_are_alternatives() -> None:
    found = placement([GPU_1], [pod(asking(1))], L4, autoscaler="karpenter")
    assert found == Placement(L4, NVIDIA, {GKE: ("nvidia-l4",), KARPENTER: ("l4",)}, total=2, free=1)
    assert placement([GPU_1], [], L4, autoscaler="gke") == placement([GPU_1], [], L4)


def test_an_autoscaler_adds_what_the_nodes_have_too_few_of() -> None:
    found = placement([GPU_1], [], Kind("L4", 4), autoscaler="karpenter")
    assert found == Placement(Kind("L4", 4), NVIDIA, {KARPENTER: ("l4",)}, total=0, free=0)


def test_what_gke_does_not_have_it_cannot_add() -> None:
    with pytest.raises(NoSuchShape, match="no node has 1 A10G, and gke can add none: it has A100, A100-80GB, B200"):
        placement([GPU_1], [], Kind("A10G", 1), autoscaler="gke")
    own = [node(labels={SKYPILOT: "a10g"})]
    assert placement(own, [], Kind("A10G", 1), autoscaler="gke").labels == {SKYPILOT: ("a10g",)}


def test_an_autoscaler_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        placement([GPU_1], [], L4, autoscaler="eks")
    assert str(refused.value) == (
        "there is no autoscaler 'eks': it is one of gke, karpenter, coreweave, nebius, generic"
    )


# What pods say then.


def at(labels: Mapping[str, tuple[str, ...]], name: str = "L4", count: int = 1, resource: str = NVIDIA) -> Placement:
    return Placement(Kind(name, count), resource, labels, total=2, free=2)


ON_GKE = at({GKE: ("nvidia-l4",)})


def template(**spec: Any) -> Object:
    container = {"name": "embed", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2", "memory": "6Gi"}}}
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container, {"name": "proxy"}], **spec}}


def expression(key: str, *values: str, operator: str = "In") -> Object:
    return {"key": key, "operator": operator, "values": [*values]}


def term(*expressions: Object, **more: Any) -> Object:
    return {"matchExpressions": [*expressions], **more}


def required(*terms: Object) -> Object:
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*terms]}}


def preferred(*preferences: tuple[int, Object]) -> Object:
    """Each a weight and a term."""
    return {"preferredDuringSchedulingIgnoredDuringExecution": weighed(*preferences)}


def weighed(*preferences: tuple[int, Object]) -> list[Object]:
    return [{"weight": weight, "preference": each} for weight, each in preferences]


def affine(*parts: Object) -> Object:
    """A template with this node affinity."""
    return template(affinity={"nodeAffinity": {name: value for part in parts for name, value in part.items()}})


def node_affinity(made: Object) -> Any:
    return made["spec"].get("affinity", {}).get("nodeAffinity", {})


CHARTED_SPOT = {None: "", Spot.PREFER: "prefer", Spot.ONLY: "require", Spot.NEVER: "avoid"}


def charted(count: int = 0, accelerators: Sequence[str] = (), spot: Spot | None = None) -> Object:
    """The template that the chart makes of `embed.gpu` and `embed.spot`, step by step as _nodes.tpl has it."""
    wish = CHARTED_SPOT[spot]
    made = template()
    tolerations, terms, preferences = [], [], []
    limits = made["spec"]["containers"][0]["resources"]["limits"]
    if count:
        limits[NVIDIA] = count
        tolerations.append({"key": NVIDIA, "operator": "Exists", "effect": "NoSchedule"})
    wanted = [expression(GKE, *accelerators)] if accelerators else []
    others = [*wanted]
    for key, value in SPOT_LABELS.items():
        if wish == "require":
            terms.append(term(expression(key, value), *wanted))
        elif wish == "prefer":
            preferences.append((100, term(expression(key, value))))
        elif wish == "avoid":
            others.append(expression(key, value, operator="NotIn"))
        if wish in ("require", "prefer"):
            tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    if others and not terms:
        terms = [term(*others)]
    node = {**(required(*terms) if terms else {}), **(preferred(*preferences) if preferences else {})}
    if tolerations:
        made["spec"]["tolerations"] = tolerations
    if node:
        made["spec"]["affinity"] = {"nodeAffinity": node}
    return made


def unordered(pod: Object) -> Object:
    """The pod with what has no order sorted: the expressions of a term, and tolerations."""
    same = copy.deepcopy(pod)
    same["spec"].get("tolerations", []).sort(key=str)
    for each in node_affinity(same).get("requiredDuringSchedulingIgnoredDuringExecution", {}).values():
        for one in each:
            one["matchExpressions"].sort(key=str)
    return same


RELEASED: list[tuple[int, list[str]]] = [(0, []), (1, []), (1, ["nvidia-tesla-t4"])]


@pytest.mark.parametrize("before", [None, *Spot])
@pytest.mark.parametrize("released", RELEASED, ids=["no-gpu", "any-gpu", "t4"])
@pytest.mark.parametrize("spot", [None, *Spot])
def test_pods_are_those_that_the_chart_makes_for_the_same_wishes(
    before: Spot | None, released: tuple[int, list[str]], spot: Spot | None
) -> None:
    """Whatever the release has said before."""
    release = charted(*released, before)
    after = before if spot is None else spot
    found = [at({GKE: ("nvidia-l4",)}, count=2), at({GKE: ("nvidia-a100-80gb",)}, "A100-80GB", count=2)]
    assert unordered(placed(release, found, spot=spot)) == unordered(
        charted(2, ["nvidia-l4", "nvidia-a100-80gb"], after)
    )
    assert unordered(placed(release, [], spot=spot)) == unordered(charted(*released, after))


def test_the_whole_pod() -> None:
    made = placed(template(), [ON_GKE], spot=None)
    assert made == {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "containers": [
                {
                    "name": "embed",
                    "resources": {
                        "requests": {"cpu": "2"},
                        "limits": {"cpu": "2", "memory": "6Gi", "nvidia.com/gpu": 1},
                    },
                },
                {"name": "proxy"},
            ],
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {
                                        "key": "cloud.google.com/gke-accelerator",
                                        "operator": "In",
                                        "values": ["nvidia-l4"],
                                    }
                                ]
                            }
                        ]
                    }
                }
            },
        },
    }


def test_no_placement_and_no_wish_leave_the_pod_as_it_is() -> None:
    for before in (None, *Spot):
        release = charted(1, ["nvidia-l4"], before)
        assert placed(release, [], spot=None) == release


def test_any_other_gpu_limit_and_request_makes_room() -> None:
    release = template()
    release["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "2", AMD: "1", NVIDIA: "1"},
        "limits": {AMD: "1", NVIDIA: "1", "memory": "6Gi"},
        "claims": [],
    }
    release["spec"]["containers"][1]["resources"] = {"limits": {NVIDIA: "1"}}
    made = placed(release, [at({SKYPILOT: ("mi300x",)}, "MI300X", 4, AMD)], spot=None)
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "2"},
        "limits": {"memory": "6Gi", AMD: 4},
        "claims": [],
    }
    assert made["spec"]["containers"][1]["resources"] == {"limits": {NVIDIA: "1"}}, "only the first is ours"
    del release["spec"]["containers"][0]["resources"]
    bare = placed(release, [ON_GKE], spot=None)
    assert bare["spec"]["containers"][0]["resources"] == {"limits": {NVIDIA: 1}}


def test_a_toleration_is_there_once_and_others_stay() -> None:
    mine = {"key": "team", "operator": "Exists"}
    gpu = {"effect": "NoSchedule", "key": NVIDIA, "operator": "Exists"}
    spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    made = placed(template(tolerations=[gpu, mine, spot]), [ON_GKE], spot=Spot.ONLY)["spec"]["tolerations"]
    assert made[:2] == [mine, gpu]
    assert [(each["key"], each["value"]) for each in made[2:]] == [*SPOT_LABELS.items()]


def test_several_labels_and_several_kinds_are_alternatives() -> None:
    found = [
        at({GKE: ("nvidia-l4",), GPU_FEATURE_DISCOVERY: ("NVIDIA-L4",)}),
        at({GKE: ("nvidia-l4", "nvidia-tesla-t4"), SKYPILOT: ("t4",)}, "T4"),
    ]
    assert node_affinity(placed(template(), found, spot=None)) == required(
        term(expression(GKE, "nvidia-l4", "nvidia-tesla-t4")),
        term(expression(GPU_FEATURE_DISCOVERY, "NVIDIA-L4")),
        term(expression(SKYPILOT, "t4")),
    )


def test_spot_nodes_of_any_cloud_are_asked_for_with_each_label_of_the_accelerator() -> None:
    found = [at({GKE: ("nvidia-l4",), SKYPILOT: ("l4",)})]
    wanted = [expression(GKE, "nvidia-l4"), expression(SKYPILOT, "l4")]
    spots = [expression(key, value) for key, value in SPOT_LABELS.items()]
    assert node_affinity(placed(template(), found, spot=Spot.ONLY)) == required(
        *(term(one, each) for one, each in product(spots, wanted))
    )
    never = [expression(key, value, operator="NotIn") for key, value in SPOT_LABELS.items()]
    assert node_affinity(placed(template(), found, spot=Spot.NEVER)) == required(
        *(term(each, *never) for each in wanted)
    )


ZONE_A, ZONE_B = expression("zone", "a"), expression("zone", "b")
WANTED = expression(GKE, "nvidia-l4")
T4 = expression(GKE, "nvidia-tesla-t4")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([term(ZONE_A)], [term(ZONE_A, WANTED)]),
        ([term(ZONE_A), term(ZONE_B)], [term(ZONE_A, WANTED), term(ZONE_B, WANTED)]),
        ([term(ZONE_A, T4)], [term(ZONE_A, WANTED)]),
        ([term(T4, ZONE_A), term(expression(SKYPILOT, "t4"), ZONE_A)], [term(ZONE_A, WANTED)]),
        ([term(T4)], [term(WANTED)]),
        ([term(T4), term(expression(NEBIUS, operator="Exists"))], [term(WANTED)]),
        ([{"matchFields": [ZONE_A]}], [term(WANTED, matchFields=[ZONE_A])]),
        ([term(T4, matchFields=[ZONE_A])], [term(WANTED, matchFields=[ZONE_A])]),
        ([term(expression("team/gpu", "t4"))], [term(expression("team/gpu", "t4"), WANTED)]),
    ],
    ids=["and", "or", "replaced", "once", "nothing-else", "any-label", "fields", "fields-stay", "label-of-their-own"],
)
def test_the_accelerator_is_wanted_beside_all_else_that_is_required(before: list[Object], after: list[Object]) -> None:
    assert node_affinity(placed(affine(required(*before)), [ON_GKE], spot=None)) == required(*after)


def test_a_label_that_only_a_finder_knows_is_replaced_too() -> None:
    found = [at({"example.com/gpu-name": ("l4",)})]
    release = affine(required(term(expression("example.com/gpu-name", "t4"))))
    assert node_affinity(placed(release, found, spot=None)) == required(term(expression("example.com/gpu-name", "l4")))


def test_where_one_alternative_asks_for_nothing_any_more_nothing_is_required() -> None:
    release = affine(required(term(expression("cloud.google.com/gke-spot", "true")), term(ZONE_A)))
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in node_affinity(placed(release, [], spot=Spot.PREFER))


def test_what_the_release_prefers_stays_but_for_spot_nodes() -> None:
    spot = expression("karpenter.sh/capacity-type", "spot")
    release = affine(preferred((10, term(T4)), (20, term(ZONE_A, spot)), (30, term(spot))))
    kept = [(10, term(T4)), (20, term(ZONE_A))]
    assert node_affinity(placed(release, [], spot=None)) == node_affinity(release)
    for wish in (Spot.ONLY, Spot.NEVER):
        made = node_affinity(placed(release, [ON_GKE], spot=wish))
        assert made["preferredDuringSchedulingIgnoredDuringExecution"] == weighed(*kept)
    added = [(100, term(expression(key, value))) for key, value in SPOT_LABELS.items()]
    assert node_affinity(placed(release, [], spot=Spot.PREFER)) == preferred(*kept, *added)


def test_a_node_selector_loses_what_would_contradict_and_other_affinity_stays() -> None:
    mine: Object = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    selector = {GKE: "nvidia-tesla-t4", "cloud.google.com/gke-spot": "true", "pool": "a"}
    made = placed(template(nodeSelector=selector, affinity=mine), [ON_GKE], spot=Spot.NEVER)["spec"]
    assert made["nodeSelector"] == {"pool": "a"}
    assert made["affinity"]["podAntiAffinity"] == mine["podAntiAffinity"]
    assert placed(template(nodeSelector=selector), [], spot=None)["spec"]["nodeSelector"] == selector
    assert "nodeSelector" not in placed(template(nodeSelector={GKE: "nvidia-tesla-t4"}), [ON_GKE], spot=None)["spec"]


def test_pods_of_one_job_take_gpus_of_one_resource() -> None:
    found = [ON_GKE, at({SKYPILOT: ("mi300x",)}, "MI300X", 1, AMD)]
    with pytest.raises(UsageError) as refused:
        placed(template(), found, spot=None)
    assert str(refused.value) == (
        "L4 is nvidia.com/gpu and MI300X is amd.com/gpu: pods of one Job take GPUs of one resource, so choose "
        "accelerators that have the same"
    )


def test_the_template_stays_as_it_was() -> None:
    release = charted(1, ["nvidia-tesla-t4"], Spot.PREFER)
    release["spec"]["nodeSelector"] = {GKE: "nvidia-tesla-t4"}
    before = copy.deepcopy(release)
    for spot in (None, *Spot):
        made = placed(release, [ON_GKE], spot=spot)
        made["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "9"
        made["spec"]["affinity"].clear()
        assert release == before


def test_no_part_of_a_pod_is_a_reference_to_another_when_it_is_printed() -> None:
    found = [at({GKE: ("nvidia-l4",), SKYPILOT: ("l4",)})]
    release = affine(required(term(ZONE_A), term(ZONE_B)))
    for spot in (None, *Spot):
        assert "&id" not in yaml.safe_dump(placed(release, found, spot=spot))


def test_what_was_asked_for_is_noted_at_the_pods() -> None:
    template = {"metadata": {"annotations": {"a": "b"}}, "spec": {}}
    one, other = (Placement(Kind(name, 1), "nvidia.com/gpu", {}, 1, None) for name in ("L4", "T4"))
    assert noted(template, [one], spot=Spot.ONLY)["metadata"]["annotations"] == {
        "a": "b",
        "imgsearch.dev/accelerator": "L4",
        "imgsearch.dev/spot": "only",
    }
    assert noted(template, [one, other], spot=None) == template, "which of them it was is not known"
    assert template == {"metadata": {"annotations": {"a": "b"}}, "spec": {}}
