"""From a run and a pod template to a Job, as the cluster gets it and `--dry-run` prints it. Pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.jobs.state import Stage
from imgsearch import labels
from imgsearch.errors import ExitCode, PermanentError
from imgsearch.settings import JobSettings, LogSettings, MetricsSettings, Settings

CONTROLLER = "controller"
EVALUATE = "evaluate"
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
"""A node that goes uses up no retry."""


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
    """The Indexed Job of one stage. `template` is a core/v1 PodTemplateSpec: its first container says everything
    about the pod but the run, which comes in as environment variables."""
    about = settings.jobs
    names = _names(release, str(stage)) | {labels.RUN: settings.run.id, labels.INDEX: settings.run.index}
    queued = about.queue is not None and stage is Stage.EMBED
    spec = {
        "completions": completions,
        "parallelism": min(parallelism, completions),
        "completionMode": "Indexed",
        "backoffLimitPerIndex": about.retries,
        # Every index gets its chance: a bad shard does not cost the good ones.
        "maxFailedIndexes": completions,
        # No two pods on one shard: the next begins when the one before has ended.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [DISRUPTED, _final("FailIndex")]},
        **_limits(about),
        **({"suspend": True} if queued else {}),
        "template": _pod(template, names, _env(settings)),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(release, settings.run.id, stage),
            "labels": {
                **names,
                labels.MANAGED_BY: "imgsearch-controller",
                **({labels.QUEUE: str(about.queue)} if queued else {}),
            },
            "annotations": {labels.SPEC_HASH: spec_hash(completions, settings)},
        },
        "spec": spec,
    }


def errand_pod(verb: str) -> str:
    """Whose PodTemplate an errand has: ingest's may reach the store; an evaluation loads the model, too."""
    return EVALUATE if verb == EVALUATE else str(Stage.INGEST)


def errand(
    program: str, verb: str, settings: Settings, template: Mapping[str, Any], *, release: str, name: str
) -> dict[str, Any]:
    """A Job that answers one question: `python -m PROGRAM VERB` in a pod of the component that errand_pod names."""
    made = job(Stage.INGEST, settings, template, release=release, completions=1, parallelism=1)
    made["metadata"]["name"] = name
    made["spec"]["ttlSecondsAfterFinished"] = 600
    pod = made["spec"]["template"]
    pod["spec"]["containers"][0]["command"] = ["python", "-m", program, verb]
    pod["metadata"]["labels"][labels.COMPONENT] = errand_pod(verb)  # NetworkPolicies look at it
    for each in (made, pod):
        names = each["metadata"]["labels"]
        del names[labels.RUN], names[labels.INDEX]  # it is no Job of the run that it asks about
        names[labels.ERRAND] = name
    return made


def detached(
    arguments: Sequence[str], settings: Settings, template: Mapping[str, Any], *, release: str
) -> dict[str, Any]:
    """The Job that runs the controller itself, with `arguments` as its command line. It may be tried again as often
    as its node goes: a run resumes."""
    names = _names(release, CONTROLLER) | {labels.RUN: settings.run.id, labels.INDEX: settings.run.index}
    pod = _pod(template, names, {})
    pod["spec"]["containers"][0]["args"] = [*arguments]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(release, settings.run.id, CONTROLLER),
            "labels": {**names, labels.MANAGED_BY: "imgsearch-controller"},
            "annotations": {labels.SPEC_HASH: spec_hash(1, settings)},
        },
        "spec": {
            "backoffLimit": settings.jobs.retries,
            "podFailurePolicy": {"rules": [DISRUPTED, _final("FailJob", ExitCode.FAILED)]},
            **_limits(replace(settings.jobs, deadline_seconds=None)),
            "template": pod,
        },
    }


def spec_hash(completions: int, settings: Settings) -> str:
    """Same work, same hash: what the run is. How many pods work at once, what these look like after an upgrade of the
    release, and what they log, does not make another run."""
    work = replace(settings, jobs=JobSettings(), log=LogSettings(), metrics=MetricsSettings()).to_env()
    return hashlib.sha256(json.dumps([completions, work], sort_keys=True).encode()).hexdigest()[:16]


def must_be_same(there: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Raises PermanentError where the Job that has this name is of another spec."""
    theirs, ours = (each["metadata"].get("annotations", {}).get(labels.SPEC_HASH) for each in (there, job))
    if theirs != ours:
        raise PermanentError(
            f"Job {job['metadata']['name']} exists with another spec ({theirs}, this one is {ours}): "
            "remove it with `controller cleanup`, or use another --run"
        )


def final_codes(spec: Mapping[str, Any]) -> set[int]:
    """The exit codes that no retry can mend, as a Job's spec has them."""
    rules = spec["podFailurePolicy"]["rules"]
    return {code for rule in rules if rule["action"] == "FailIndex" for code in rule["onExitCodes"]["values"]}


def _names(release: str, component: str) -> dict[str, str]:
    return {labels.NAME: "imgsearch", labels.INSTANCE: release, labels.COMPONENT: component}


def _env(settings: Settings) -> dict[str, str]:
    """What the pods are told; how their Jobs are made is no business of theirs."""
    return replace(settings, jobs=JobSettings()).to_env()


def _final(action: str, *more: ExitCode) -> dict[str, Any]:
    """The rule for exit codes that no retry can mend."""
    codes = sorted(int(code) for code in (ExitCode.USAGE, ExitCode.PERMANENT, *more))
    return {"action": action, "onExitCodes": {"operator": "In", "values": codes}}


def _limits(about: JobSettings) -> dict[str, Any]:
    limits = {"activeDeadlineSeconds": about.deadline_seconds, "ttlSecondsAfterFinished": about.ttl_seconds}
    return {name: value for name, value in limits.items() if value is not None}


def _pod(template: Mapping[str, Any], names: Mapping[str, str], env: Mapping[str, str]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "metadata": copy.deepcopy(dict(template.get("metadata") or {})),
        "spec": copy.deepcopy(dict(template["spec"])),
    }
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **names}
    # A PodTemplate that the API server has stored has every default filled in; for a Job this one would be wrong.
    pod["spec"]["restartPolicy"] = "Never"
    for container in [*pod["spec"].get("initContainers", []), pod["spec"]["containers"][0]]:
        given = {entry["name"]: entry for entry in container.get("env", [])}
        given.update({name: {"name": name, "value": value} for name, value in env.items()})
        container["env"] = [given[name] for name in sorted(given)]
    return pod
