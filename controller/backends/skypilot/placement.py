"""The pod template of a SkyPilot task, and the GPUs and machines that a run chooses for it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.gpus.accelerators import Kind, one_gpu
from controller.gpus.nodes import NVIDIA, Spot
from imgsearch import labels
from imgsearch.errors import UsageError

TASK = "imgsearch.dev/sky-task"
"""Annotation of a pod template: its task, as JSON."""


@dataclass(frozen=True)
class MachinePlacement:
    """The machines on which a run embeds: the Placement (controller.jobs.manifests) of SkyPilot, which rents the
    cheapest of them."""

    kinds: tuple[Kind, ...] = ()
    """Alternatives. Empty: the GPUs stay those of the task's file."""
    spot: Spot | None = None
    """None: the task's file decides about spot machines."""

    def applied(self, template: Mapping[str, Any]) -> dict[str, Any]:
        if not self.kinds and self.spot is None:
            return dict(template)
        task = json.loads(template["metadata"]["annotations"][TASK])
        resources = _resources(task["resources"], self.kinds, self.spot)
        return pod_template(template["spec"]["containers"][0]["name"], {**task, "resources": resources})


def pod_template(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """The core/v1 PodTemplateSpec that stands for a task, with one container of this name. Raises UsageError where the
    machines of the task do not have one GPU or none."""
    variables = {name: str(value) for name, value in (task.get("envs") or {}).items() if value is not None}
    gpus, spot = machine_gpus(task["resources"])
    annotations = {TASK: json.dumps(task)}
    if len(gpus) == 1:
        annotations |= {labels.ACCELERATOR: next(iter(gpus)), labels.SPOT: str(spot)}
    container = {
        "name": name,
        "image": str(task["resources"].get("image_id", "")).removeprefix("docker:"),
        "command": ["bash", "-c", task["run"]],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": {"limits": {NVIDIA: "1"}} if gpus else {},
    }
    return {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}


def _resources(resources: Mapping[str, Any], kinds: Sequence[Kind], spot: Spot | None) -> dict[str, Any]:
    """The resources of a task with other GPUs or machines."""
    alternatives = [{"accelerators": f"{kind.name}:1"} for kind in kinds] or _alternatives(resources)
    if spot is not None:
        # SkyPilot takes the cheapest available machine, which is a spot machine where there is one.
        choices = {Spot.ONLY: [True], Spot.NEVER: [False], Spot.PREFER: [True, False]}[spot]
        alternatives = [{**alternative, "use_spot": use} for use in choices for alternative in alternatives]
    return {**{name: value for name, value in resources.items() if name != "ordered"}, "any_of": alternatives}


def _alternatives(resources: Mapping[str, Any]) -> list[dict[str, Any]]:
    return resources.get("any_of") or resources.get("ordered") or [{}]


def machine_gpus(resources: Mapping[str, Any]) -> tuple[set[str], Spot]:
    """The GPUs of which a machine may have one, and whether it may be a spot machine. Raises UsageError for several
    GPUs of a machine."""
    names: set[str] = set()
    spots = set()
    for alternative in _alternatives(resources):
        accelerators = {**resources, **alternative}.get("accelerators") or []
        if isinstance(accelerators, Mapping):
            accelerators = [f"{name}:{count}" for name, count in accelerators.items()]
        for accelerator in [accelerators] if isinstance(accelerators, str) else accelerators:
            name, _, count = accelerator.partition(":")
            if count not in ("", "1"):
                raise UsageError(one_gpu(f"accelerators {accelerator} of a SkyPilot task", f"{name}:1"))
            names.add(name)
        spots.add(bool({**resources, **alternative}.get("use_spot")))
    return names, Spot.PREFER if len(spots) > 1 else Spot.ONLY if True in spots else Spot.NEVER
