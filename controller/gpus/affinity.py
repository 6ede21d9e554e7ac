"""What pods must say to get onto nodes that have their GPUs: limits, tolerations and node affinity. Pure.

PodTemplateSpecs are core/v1 objects as JSON.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Set
from itertools import product
from typing import Any

from controller.gpus.accelerators import ACCELERATOR_LABELS
from controller.gpus.nodes import SPOT_LABELS, NodeMatch, Spot
from imgsearch import labels
from imgsearch.errors import UsageError

Object = Mapping[str, Any]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def placed(template: Object, placements: Sequence[NodeMatch], *, spot: Spot | None) -> dict[str, Any]:
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


def noted(template: Object, placements: Sequence[NodeMatch], *, spot: Spot | None) -> dict[str, Any]:
    """The PodTemplateSpec with annotations that say what was asked for: its price depends on it."""
    notes = {labels.ACCELERATOR: placements[0].kind.name if len(placements) == 1 else None, labels.SPOT: spot}
    about = template.get("metadata") or {}
    told = {**(about.get("annotations") or {}), **{key: str(note) for key, note in notes.items() if note}}
    return {**template, "metadata": {**about, "annotations": told}}


def _ask_for(container: dict[str, Any], resource: str, count: int) -> None:
    """Sets the only GPU limit of a container; the API server makes the request of it."""
    asked = container.setdefault("resources", {})
    for part in asked.keys() & {"limits", "requests"}:
        asked[part] = {name: value for name, value in asked[part].items() if not name.endswith("/gpu")}
    asked["limits"] = {**asked.get("limits", {}), resource: count}


def _node_affinity(
    old: Object, decided: Set[str], placements: Sequence[NodeMatch], spot: Spot | None
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
