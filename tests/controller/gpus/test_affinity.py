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
from tests.controller.nodes import AMD, NVIDIA, Object


def at(labels: Mapping[str, tuple[str, ...]], name: str = "L4", count: int = 1, resource: str = NVIDIA) -> NodeMatch:
    return NodeMatch(Kind(name, count), resource, labels, total=2, free=2)


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
    with pytest.raises(UsageError, match=r"L4 is nvidia\.com/gpu and MI300X is amd\.com/gpu: .*one resource"):
        placed(template(), found, spot=None)


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


def test_a_placement_is_a_value_that_makes_one_pod_template_of_another() -> None:
    placement = NodePlacement((ON_GKE,), Spot.ONLY)
    assert placement == NodePlacement((at({GKE: ("nvidia-l4",)}),), Spot.ONLY)
    before = template()
    made = placement.applied(before)
    assert made["spec"] == placed(before, [ON_GKE], spot=Spot.ONLY)["spec"]
    assert made["metadata"] == noted(before, [ON_GKE], spot=Spot.ONLY)["metadata"]
    assert NodePlacement().applied(before)["spec"] == before["spec"]


def test_what_was_asked_for_is_noted_at_the_pods() -> None:
    template = {"metadata": {"annotations": {"a": "b"}}, "spec": {}}
    one, other = (NodeMatch(Kind(name, 1), "nvidia.com/gpu", {}, 1, None) for name in ("L4", "T4"))
    assert noted(template, [one], spot=Spot.ONLY)["metadata"]["annotations"] == {
        "a": "b",
        "imgsearch.dev/accelerator": "L4",
        "imgsearch.dev/spot": "only",
    }
    assert noted(template, [one, other], spot=None) == template, "which of them it was is not known"
    assert template == {"metadata": {"annotations": {"a": "b"}}, "spec": {}}
