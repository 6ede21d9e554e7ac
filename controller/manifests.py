"""From a run and a pod template to a Job, as the cluster gets it and `--dry-run` prints it. Pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from controller.jobs import Stage
from imgsearch import labels
from imgsearch.errors import ExitCode
from imgsearch.settings import Settings

RETRIES = 3
"""How often one index may fail with what a retry can mend; kills by the node do not count."""


def job_name(release: str, run: str, stage: str) -> str:
    return f"{release}-{run}-{stage}"


def job(
    stage: Stage,
    settings: Settings,
    template: Mapping[str, Any],
    *,
    release: str,
    completions: int,
    parallelism: int,
) -> dict[str, Any]:
    """The Indexed Job of one stage. `template` is a core/v1 PodTemplateSpec: its one container says everything about
    the pod but the run, which comes in as environment variables."""
    settled = settings.run
    names = {
        labels.NAME: "imgsearch",
        labels.INSTANCE: release,
        labels.COMPONENT: str(stage),
        labels.RUN: settled.id,
        labels.INDEX: settled.index,
    }
    spec = {
        "completions": completions,
        "parallelism": min(parallelism, completions),
        "completionMode": "Indexed",
        "backoffLimitPerIndex": RETRIES,
        # Every index gets its chance: a bad shard does not cost the good ones.
        "maxFailedIndexes": completions,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                {
                    "action": "FailIndex",
                    "onExitCodes": {
                        "operator": "In",
                        "values": [int(ExitCode.USAGE), int(ExitCode.PERMANENT)],
                    },
                },
            ]
        },
        "template": _pod(template, names, settings.to_env()),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(release, settled.id, stage),
            "labels": {**names, labels.MANAGED_BY: "imgsearch-controller"},
            "annotations": {labels.SPEC_HASH: spec_hash(spec)},
        },
        "spec": spec,
    }


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Same spec, same hash; how many run at once does not make another Job."""
    lasting = {key: value for key, value in spec.items() if key != "parallelism"}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:16]


def _pod(template: Mapping[str, Any], names: Mapping[str, str], env: Mapping[str, str]) -> dict[str, Any]:
    pod: dict[str, Any] = copy.deepcopy(dict(template))
    pod.setdefault("metadata", {}).setdefault("labels", {}).update(names)
    pod["spec"]["restartPolicy"] = "Never"
    container = pod["spec"]["containers"][0]
    given = {entry["name"]: entry for entry in container.get("env", [])}
    given.update({name: {"name": name, "value": value} for name, value in env.items()})
    container["env"] = [given[name] for name in sorted(given)]
    return pod
