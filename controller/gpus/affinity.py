"""The GPU limits, tolerations and node affinity that bring pods to the nodes which have their GPUs. Pure.

PodTemplateSpecs are core/v1 objects as JSON.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import product
from typing import Any

from controller.gpus.accelerators import ACCELERATOR_LABELS, Kind
from controller.gpus.nodes import SPOT_LABELS, NodeMatch, Object, Spot
from controller.gpus.pods import is_extended
from imgsearch import labels
from imgsearch.errors import UsageError

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True)
class NodePlacement:
    """The nodes of a cluster on which a run embeds: the Placement (controller.jobs.manifests) of Kubernetes."""

    matches: tuple[NodeMatch, ...] = ()
    """Alternatives. Empty: the GPUs stay those of the release."""
    spot: Spot | None = None
    """None: the release decides about spot nodes."""
    kinds: tuple[Kind, ...] = ()
    """The GPUs that were requested. The matches are those that nodes have now."""

    def applied(self, template: Object) -> dict[str, Any]:
        return noted(placed(template, self.matches, spot=self.spot), self.matches, spot=self.spot)


def placed(template: Object, matches: Sequence[NodeMatch], *, spot: Spot | None) -> dict[str, Any]:
    """The PodTemplateSpec with its pods on the nodes of any match: limits of the first container, tolerations and node
    affinity, as the chart writes them for the same values.

    The matches replace the accelerators of the template, and `spot` replaces its choice of spot nodes. Everything else
    stays and is still required. Without matches the template keeps its GPUs; with `spot` None it keeps its spot nodes.

    Raises UsageError where the matches have GPUs of several resources."""
    resources = {match.resource: match.kind.name for match in matches}
    if len(resources) > 1:
        names = " and ".join(f"{name} is {resource}" for resource, name in resources.items())
        raise UsageError(
            f"{names}: the pods of one Job take GPUs of one resource. Choose accelerators that have the same resource"
        )
    pod = copy.deepcopy(dict(template))
    spec = pod["spec"]
    decided: set[str] = set()
    tolerations: list[Object] = spec.get("tolerations", [])
    if matches:
        _limit_gpus(spec["containers"][0], matches[0].resource)
        decided.update(ACCELERATOR_LABELS, *(match.labels for match in matches))
        gpu_tolerations = _gpu_tolerations(matches[0].resource)
        tolerations = [*(entry for entry in tolerations if entry not in gpu_tolerations), *gpu_tolerations]
    if spot is not None:
        decided.update(SPOT_LABELS)
        spot_tolerations = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in SPOT_LABELS.items()
        ]
        tolerations = [entry for entry in tolerations if entry not in spot_tolerations]
        tolerations += [] if spot is Spot.NEVER else spot_tolerations

    affinity = spec.get("affinity", {})
    node = _node_affinity(affinity.get("nodeAffinity", {}), decided, matches, spot)
    rewritten = {
        "tolerations": tolerations,
        "affinity": {name: part for name, part in {**affinity, "nodeAffinity": node}.items() if part},
        # A node selector is required as well, and an old one would contradict the affinity.
        "nodeSelector": {key: value for key, value in spec.get("nodeSelector", {}).items() if key not in decided},
    }
    for name, value in rewritten.items():
        spec.pop(name, None)
        if value:
            spec[name] = value
    return pod


def noted(template: Object, matches: Sequence[NodeMatch], *, spot: Spot | None) -> dict[str, Any]:
    """The PodTemplateSpec with annotations that name the accelerator and the choice of spot nodes: the cost of the run
    depends on them."""
    notes = {labels.ACCELERATOR: matches[0].kind.name if len(matches) == 1 else None, labels.SPOT: spot}
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), **{key: str(note) for key, note in notes.items() if note}}
    return {**template, "metadata": {**metadata, "annotations": annotations}}


def _limit_gpus(container: dict[str, Any], resource: str) -> None:
    """Sets the only GPU limit of a container. The API server copies it to the requests."""
    resources = container.setdefault("resources", {})
    for part in resources.keys() & {"limits", "requests"}:
        resources[part] = {name: value for name, value in resources[part].items() if not is_extended(name)}
    resources["limits"] = {**resources.get("limits", {}), resource: 1}


def _gpu_tolerations(resource: str) -> list[Object]:
    """Tolerations of the taints of GPU nodes, as in the chart's _nodes.tpl: the key is the name of the resource, as the
    admission plugin ExtendedResourceToleration assumes, or the vendor's `gpu`, as clouds and GPU operators set it."""
    vendor, _, _ = resource.partition("/")
    keys = dict.fromkeys([resource, f"{vendor}/gpu"])
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def _node_affinity(old: Object, decided: Set[str], matches: Sequence[NodeMatch], spot: Spot | None) -> dict[str, Any]:
    """The terms of a node affinity are alternatives; all expressions of a term must hold
    (https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity)."""
    gpu_labels: dict[str, list[str]] = {}
    for match in matches:
        for key, values in match.labels.items():
            gpu_labels[key] = list(dict.fromkeys([*gpu_labels.get(key, []), *values]))
    spots = [_expression(key, "In", [value]) for key, value in SPOT_LABELS.items()]
    not_spots = [_expression(key, "NotIn", [value]) for key, value in SPOT_LABELS.items()]

    before = [_without(term, decided) for term in old.get(REQUIRED, {}).get("nodeSelectorTerms", [])] or [{}]
    only = [[expression] for expression in spots] if spot is Spot.ONLY else [[]]
    accelerators = [[_expression(key, "In", values)] for key, values in gpu_labels.items()] or [[]]
    never = not_spots if spot is Spot.NEVER else []
    required: list[dict[str, Any]] = []
    for term, spot_only, accelerator in product(before, only, accelerators):
        expressions = [*term.get("matchExpressions", []), *spot_only, *accelerator, *never]
        combined = {**term, **({"matchExpressions": expressions} if expressions else {})}
        if combined not in required:
            required.append(copy.deepcopy(combined))  # YAML would print shared parts as references

    preferred = []
    for weighted in old.get(PREFERRED, []):
        # The template may still prefer one of several accelerators.
        if preference := _without(weighted["preference"], decided & SPOT_LABELS.keys()):
            preferred.append({**weighted, "preference": preference})
    if spot is Spot.PREFER:
        preferred += [{"weight": 100, "preference": {"matchExpressions": [expression]}} for expression in spots]
    return {
        # An empty term holds for every node, so its alternatives add nothing.
        **({REQUIRED: {"nodeSelectorTerms": required}} if {} not in required else {}),
        **({PREFERRED: preferred} if preferred else {}),
    }


def _expression(key: str, operator: str, values: list[str]) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": values}


def _without(term: Object, keys: Set[str]) -> dict[str, Any]:
    """A NodeSelectorTerm without its expressions on these labels."""
    kept = [expression for expression in term.get("matchExpressions", []) if expression["key"] not in keys]
    rest = {name: value for name, value in term.items() if name != "matchExpressions"}
    return {**rest, **({"matchExpressions": kept} if kept else {})}
