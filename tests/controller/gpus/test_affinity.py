"""What pods say to get onto the nodes that were found, as the chart would say it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest
import yaml

from controller.gpus.accelerators import GKE, GPU_FEATURE_DISCOVERY, NEBIUS, SKYPILOT, Kind
from controller.gpus.affinity import NodePlacement, noted, placed
from controller.gpus.nodes import SPOT_LABELS, NodeMatch, Spot
from imgsearch.errors import UsageError
from tests.controller.nodes import AMD, NVIDIA, PARTS, Object


def node_match(labels: Mapping[str, tuple[str, ...]], name: str = "L4", resource: str = NVIDIA) -> NodeMatch:
    return NodeMatch(Kind(name), resource, labels, total=2, free=2)


ON_GKE = node_match({GKE: ("nvidia-l4",)})


def template(**spec: Any) -> Object:
    container = {"name": "embed", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2", "memory": "6Gi"}}}
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container, {"name": "proxy"}], **spec}}


def expression(key: str, *values: str, operator: str = "In") -> Object:
    return {"key": key, "operator": operator, "values": [*values]}


def term(*expressions: Object, **fields: Any) -> Object:
    return {"matchExpressions": [*expressions], **fields}


def required(*terms: Object) -> Object:
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*terms]}}


def preferred(*preferences: tuple[int, Object]) -> Object:
    """Each a weight and a term."""
    return {"preferredDuringSchedulingIgnoredDuringExecution": weighted(*preferences)}


def weighted(*preferences: tuple[int, Object]) -> list[Object]:
    return [{"weight": weight, "preference": preference} for weight, preference in preferences]


def template_with_affinity(*fields: Object) -> Object:
    """A template with this node affinity."""
    return template(affinity={"nodeAffinity": {name: value for field in fields for name, value in field.items()}})


def node_affinity(template: Object) -> Any:
    return template["spec"].get("affinity", {}).get("nodeAffinity", {})


CHART_SPOT = {None: "", Spot.PREFER: "prefer", Spot.ONLY: "require", Spot.NEVER: "avoid"}


def chart_template(count: int = 0, accelerators: Sequence[str] = (), spot: Spot | None = None) -> Object:
    """The template that the chart makes of `embed.gpu` and `embed.spot`, step by step as _nodes.tpl has it."""
    chart_spot = CHART_SPOT[spot]
    pod_template = template()
    tolerations, terms, preferences = [], [], []
    limits = pod_template["spec"]["containers"][0]["resources"]["limits"]
    if count:
        limits[NVIDIA] = count
        tolerations.append({"key": NVIDIA, "operator": "Exists", "effect": "NoSchedule"})
    gpu_expressions = [expression(GKE, *accelerators)] if accelerators else []
    expressions = [*gpu_expressions]
    for key, value in SPOT_LABELS.items():
        if chart_spot == "require":
            terms.append(term(expression(key, value), *gpu_expressions))
        elif chart_spot == "prefer":
            preferences.append((100, term(expression(key, value))))
        elif chart_spot == "avoid":
            expressions.append(expression(key, value, operator="NotIn"))
        if chart_spot in ("require", "prefer"):
            tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    if expressions and not terms:
        terms = [term(*expressions)]
    node = {**(required(*terms) if terms else {}), **(preferred(*preferences) if preferences else {})}
    if tolerations:
        pod_template["spec"]["tolerations"] = tolerations
    if node:
        pod_template["spec"]["affinity"] = {"nodeAffinity": node}
    return pod_template


def sorted_pod(pod: Object) -> Object:
    """The pod with what has no order sorted: the expressions of a term, and tolerations."""
    ordered = copy.deepcopy(pod)
    ordered["spec"].get("tolerations", []).sort(key=str)
    for terms in node_affinity(ordered).get("requiredDuringSchedulingIgnoredDuringExecution", {}).values():
        for node_term in terms:
            node_term["matchExpressions"].sort(key=str)
    return ordered


RELEASED: list[tuple[int, list[str]]] = [(0, []), (1, []), (1, ["nvidia-tesla-t4"])]


@pytest.mark.parametrize("released_spot", [None, *Spot])
@pytest.mark.parametrize("released", RELEASED, ids=["no-gpu", "any-gpu", "t4"])
@pytest.mark.parametrize("spot", [None, *Spot])
def test_pods_are_those_that_the_chart_makes_for_the_same_wishes(
    released_spot: Spot | None, released: tuple[int, list[str]], spot: Spot | None
) -> None:
    """Whatever the release has said before."""
    release = chart_template(*released, released_spot)
    expected_spot = released_spot if spot is None else spot
    matches = [
        node_match({GKE: ("nvidia-l4",)}),
        node_match({GKE: ("nvidia-a100-80gb",)}, "A100-80GB"),
    ]
    assert sorted_pod(placed(release, matches, spot=spot)) == sorted_pod(
        chart_template(1, ["nvidia-l4", "nvidia-a100-80gb"], expected_spot)
    )
    assert sorted_pod(placed(release, [], spot=spot)) == sorted_pod(chart_template(*released, expected_spot))


def test_the_whole_pod() -> None:
    pod = placed(template(), [ON_GKE], spot=None)
    assert pod == {
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
    for released_spot in (None, *Spot):
        release = chart_template(1, ["nvidia-l4"], released_spot)
        assert placed(release, [], spot=None) == release


@pytest.mark.parametrize("released", [NVIDIA, *PARTS, "gpu.intel.com/i915"])
def test_any_other_gpu_limit_and_request_makes_room(released: str) -> None:
    release = template()
    release["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "2", "hugepages-2Mi": "4Mi", AMD: "1", released: "1"},
        "limits": {AMD: "1", released: "1", "memory": "6Gi"},
        "claims": [],
    }
    release["spec"]["containers"][1]["resources"] = {"limits": {NVIDIA: "1"}}
    pod = placed(release, [node_match({SKYPILOT: ("mi300x",)}, "MI300X", AMD)], spot=None)
    assert pod["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "hugepages-2Mi": "4Mi"},
        "limits": {"memory": "6Gi", AMD: 1},
        "claims": [],
    }
    assert pod["spec"]["containers"][1]["resources"] == {"limits": {NVIDIA: "1"}}, "only the first is ours"
    del release["spec"]["containers"][0]["resources"]
    bare = placed(release, [ON_GKE], spot=None)
    assert bare["spec"]["containers"][0]["resources"] == {"limits": {NVIDIA: 1}}


def test_a_toleration_is_there_once_and_others_stay() -> None:
    team = {"key": "team", "operator": "Exists"}
    gpu = {"effect": "NoSchedule", "key": NVIDIA, "operator": "Exists"}
    spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    tolerations = placed(template(tolerations=[gpu, team, spot]), [ON_GKE], spot=Spot.ONLY)["spec"]["tolerations"]
    assert tolerations[:2] == [team, gpu]
    assert [(toleration["key"], toleration["value"]) for toleration in tolerations[2:]] == [*SPOT_LABELS.items()]


@pytest.mark.parametrize(
    ("resource", "keys"),
    [
        (NVIDIA, [NVIDIA]),
        ("nvidia.com/mig-1g.5gb", ["nvidia.com/mig-1g.5gb", NVIDIA]),
        ("gpu.intel.com/i915", ["gpu.intel.com/i915", "gpu.intel.com/gpu"]),
    ],
)
def test_taints_with_the_name_of_the_resource_and_of_the_vendors_gpu_are_tolerated(
    resource: str, keys: list[str]
) -> None:
    spec = placed(template(), [node_match({SKYPILOT: ("x",)}, "X", resource)], spot=None)["spec"]
    assert spec["tolerations"] == [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def test_several_labels_and_several_kinds_are_alternatives() -> None:
    matches = [
        node_match({GKE: ("nvidia-l4",), GPU_FEATURE_DISCOVERY: ("NVIDIA-L4",)}),
        node_match({GKE: ("nvidia-l4", "nvidia-tesla-t4"), SKYPILOT: ("t4",)}, "T4"),
    ]
    assert node_affinity(placed(template(), matches, spot=None)) == required(
        term(expression(GKE, "nvidia-l4", "nvidia-tesla-t4")),
        term(expression(GPU_FEATURE_DISCOVERY, "NVIDIA-L4")),
        term(expression(SKYPILOT, "t4")),
    )


def test_spot_nodes_of_any_cloud_are_asked_for_with_each_label_of_the_accelerator() -> None:
    matches = [node_match({GKE: ("nvidia-l4",), SKYPILOT: ("l4",)})]
    gpu_expressions = [expression(GKE, "nvidia-l4"), expression(SKYPILOT, "l4")]
    spot_expressions = [expression(key, value) for key, value in SPOT_LABELS.items()]
    assert node_affinity(placed(template(), matches, spot=Spot.ONLY)) == required(
        *(term(spot, gpu) for spot, gpu in product(spot_expressions, gpu_expressions))
    )
    not_spot = [expression(key, value, operator="NotIn") for key, value in SPOT_LABELS.items()]
    assert node_affinity(placed(template(), matches, spot=Spot.NEVER)) == required(
        *(term(gpu, *not_spot) for gpu in gpu_expressions)
    )


ZONE_A, ZONE_B = expression("zone", "a"), expression("zone", "b")
WANTED = expression(GKE, "nvidia-l4")
T4 = expression(GKE, "nvidia-tesla-t4")


@pytest.mark.parametrize(
    ("release_terms", "expected_terms"),
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
def test_the_accelerator_is_wanted_beside_all_else_that_is_required(
    release_terms: list[Object], expected_terms: list[Object]
) -> None:
    assert node_affinity(placed(template_with_affinity(required(*release_terms)), [ON_GKE], spot=None)) == required(
        *expected_terms
    )


def test_a_label_that_only_a_finder_knows_is_replaced_too() -> None:
    matches = [node_match({"example.com/gpu-name": ("l4",)})]
    release = template_with_affinity(required(term(expression("example.com/gpu-name", "t4"))))
    assert node_affinity(placed(release, matches, spot=None)) == required(
        term(expression("example.com/gpu-name", "l4"))
    )


def test_where_one_alternative_asks_for_nothing_any_more_nothing_is_required() -> None:
    release = template_with_affinity(required(term(expression("cloud.google.com/gke-spot", "true")), term(ZONE_A)))
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in node_affinity(placed(release, [], spot=Spot.PREFER))


def test_what_the_release_prefers_stays_but_for_spot_nodes() -> None:
    spot = expression("karpenter.sh/capacity-type", "spot")
    release = template_with_affinity(preferred((10, term(T4)), (20, term(ZONE_A, spot)), (30, term(spot))))
    preferences = [(10, term(T4)), (20, term(ZONE_A))]
    assert node_affinity(placed(release, [], spot=None)) == node_affinity(release)
    for choice in (Spot.ONLY, Spot.NEVER):
        affinity = node_affinity(placed(release, [ON_GKE], spot=choice))
        assert affinity["preferredDuringSchedulingIgnoredDuringExecution"] == weighted(*preferences)
    spot_preferences = [(100, term(expression(key, value))) for key, value in SPOT_LABELS.items()]
    assert node_affinity(placed(release, [], spot=Spot.PREFER)) == preferred(*preferences, *spot_preferences)


def test_a_node_selector_loses_what_would_contradict_and_other_affinity_stays() -> None:
    affinity: Object = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    selector = {GKE: "nvidia-tesla-t4", "cloud.google.com/gke-spot": "true", "pool": "a"}
    spec = placed(template(nodeSelector=selector, affinity=affinity), [ON_GKE], spot=Spot.NEVER)["spec"]
    assert spec["nodeSelector"] == {"pool": "a"}
    assert spec["affinity"]["podAntiAffinity"] == affinity["podAntiAffinity"]
    assert placed(template(nodeSelector=selector), [], spot=None)["spec"]["nodeSelector"] == selector
    assert "nodeSelector" not in placed(template(nodeSelector={GKE: "nvidia-tesla-t4"}), [ON_GKE], spot=None)["spec"]


def test_pods_of_one_job_take_gpus_of_one_resource() -> None:
    matches = [ON_GKE, node_match({SKYPILOT: ("mi300x",)}, "MI300X", AMD)]
    with pytest.raises(UsageError, match=r"L4 is nvidia\.com/gpu and MI300X is amd\.com/gpu: .*one resource"):
        placed(template(), matches, spot=None)


def test_the_template_stays_as_it_was() -> None:
    release = chart_template(1, ["nvidia-tesla-t4"], Spot.PREFER)
    release["spec"]["nodeSelector"] = {GKE: "nvidia-tesla-t4"}
    original = copy.deepcopy(release)
    for spot in (None, *Spot):
        pod = placed(release, [ON_GKE], spot=spot)
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "9"
        pod["spec"]["affinity"].clear()
        assert release == original


def test_no_part_of_a_pod_is_a_reference_to_another_when_it_is_printed() -> None:
    matches = [node_match({GKE: ("nvidia-l4",), SKYPILOT: ("l4",)})]
    release = template_with_affinity(required(term(ZONE_A), term(ZONE_B)))
    for spot in (None, *Spot):
        assert "&id" not in yaml.safe_dump(placed(release, matches, spot=spot))


def test_a_placement_is_a_value_that_makes_one_pod_template_of_another() -> None:
    placement = NodePlacement((ON_GKE,), Spot.ONLY)
    assert placement == NodePlacement((node_match({GKE: ("nvidia-l4",)}),), Spot.ONLY)
    pod_template = template()
    pod = placement.applied(pod_template)
    assert pod["spec"] == placed(pod_template, [ON_GKE], spot=Spot.ONLY)["spec"]
    assert pod["metadata"] == noted(pod_template, [ON_GKE], spot=Spot.ONLY)["metadata"]
    assert NodePlacement().applied(pod_template)["spec"] == pod_template["spec"]


def test_what_was_asked_for_is_noted_at_the_pods() -> None:
    template = {"metadata": {"annotations": {"a": "b"}}, "spec": {}}
    l4, t4 = (NodeMatch(Kind(name), "nvidia.com/gpu", {}, 1, None) for name in ("L4", "T4"))
    assert noted(template, [l4], spot=Spot.ONLY)["metadata"]["annotations"] == {
        "a": "b",
        "imgsearch.dev/accelerator": "L4",
        "imgsearch.dev/spot": "only",
    }
    assert noted(template, [l4, t4], spot=None) == template, "which of them it was is not known"
    assert template == {"metadata": {"annotations": {"a": "b"}}, "spec": {}}
