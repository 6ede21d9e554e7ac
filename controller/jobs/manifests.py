"""Builds Jobs from a run and a pod template: the same object that the backend gets and `--dry-run` prints. Pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from controller.gpus.accelerators import Kind
from controller.gpus.nodes import Spot
from controller.jobs.state import Stage
from imgsearch import labels
from imgsearch.errors import ExitCode, PermanentError
from imgsearch.settings import IndexSettings, JobSettings, LogSettings, MetricsSettings, Settings

CONTROLLER = "controller"
EVALUATE = "evaluate"
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
"""A lost node costs no retry."""
STOPPED = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [int(ExitCode.INTERRUPTED)]}}
"""Nor does a pod that was stopped from outside, as Kueue stops the pods of a preempted Job."""


class Placement(Protocol):
    """The GPUs and the nodes or machines on which a run embeds, as a value: NodePlacement
    (controller/gpus/affinity.py) or MachinePlacement (controller/backends/skypilot/placement.py)."""

    @property
    def kinds(self) -> Sequence[Kind]:
        """The GPUs that were requested; empty: those of the template."""
        ...

    @property
    def spot(self) -> Spot | None:
        """The choice of spot nodes or machines that was requested."""
        ...

    def applied(self, template: Mapping[str, Any]) -> Mapping[str, Any]:
        """The PodTemplateSpec of pods that ask for them; `template` stays as it was."""


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
    placement: Placement | None = None,
) -> dict[str, Any]:
    """The Indexed Job of one stage. `template` is a core/v1 PodTemplateSpec that is complete but for the run: its first
    container gets the run as environment variables. The embed pods go where `placement` sends them; None: where the
    template does."""
    options = settings.jobs
    placed, request = template, ""
    if placement is not None and stage is Stage.EMBED:
        placed, request = placement.applied(template), f"{[*placement.kinds]} {placement.spot}"
    names = _names(release, str(stage)) | {labels.RUN: settings.run.id, labels.INDEX: settings.run.index}
    queued = options.queue is not None and stage is Stage.EMBED
    pod = _pod(placed, names, _env(settings))
    request += f" {options.queue}" if queued else ""
    spec = {
        "completions": completions,
        "parallelism": min(parallelism, completions),
        "completionMode": "Indexed",
        "backoffLimitPerIndex": options.retries,
        # A bad shard must not stop the good ones.
        "maxFailedIndexes": completions,
        # One pod a shard: the next one begins after the last one has ended.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [DISRUPTED, STOPPED, _final("FailIndex")]},
        **_limits(options),
        **({"suspend": True} if queued else {}),
        "template": pod,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(release, settings.run.id, stage),
            "labels": {
                **pod["metadata"]["labels"],  # with those of the chart's values, which a policy may require
                labels.MANAGED_BY: "imgsearch-controller",
                **({labels.QUEUE: str(options.queue)} if queued else {}),
            },
            "annotations": {
                labels.SPEC_HASH: spec_hash(completions, settings),
                # A quota for fewer pods than the Job has admits so many; Kueue refuses the annotation for one pod.
                **({labels.MIN_PARALLELISM: "1"} if queued and min(parallelism, completions) > 1 else {}),
                # Without the nodes that a placement has found, which change by themselves.
                labels.TEMPLATE_HASH: _hash([_pod(template, names, _env(settings)), request]),
            },
        },
        "spec": spec,
    }


def quiet(settings: Settings) -> Settings:
    """The settings of a command that writes its output to the log of a pod or task: it logs nothing else."""
    return replace(settings, log=LogSettings(level="CRITICAL"))


def query_pod(verb: str) -> str:
    """The component whose PodTemplate a query job uses. The pod of ingest may reach the store; the pod of an evaluation
    may load the model as well."""
    return EVALUATE if verb == EVALUATE else str(Stage.INGEST)


def query_job(
    program: str, verb: str, settings: Settings, template: Mapping[str, Any], *, release: str, name: str
) -> dict[str, Any]:
    """A Job that answers one query: `python -m PROGRAM VERB` in a pod of the component that query_pod names."""
    query = job(Stage.INGEST, settings, template, release=release, completions=1, parallelism=1)
    query["metadata"]["name"] = name
    query["spec"]["ttlSecondsAfterFinished"] = 600
    pod = query["spec"]["template"]
    pod["spec"]["containers"][0]["command"] = ["python", "-m", program, verb]
    pod["metadata"]["labels"][labels.COMPONENT] = query_pod(verb)  # NetworkPolicies select by it
    for labelled in (query, pod):
        names = labelled["metadata"]["labels"]
        del names[labels.RUN], names[labels.INDEX]  # it does not belong to the run that it reads
        names[labels.QUERY] = name
    return query


def detached(
    arguments: Sequence[str], settings: Settings, template: Mapping[str, Any], *, release: str
) -> dict[str, Any]:
    """The Job that runs the controller itself, with `arguments` as its command line. A lost node does not count as a
    retry, because a run resumes."""
    names = _names(release, CONTROLLER) | {labels.RUN: settings.run.id, labels.INDEX: settings.run.index}
    pod = _pod(template, names, {})
    pod["spec"]["containers"][0]["args"] = [*arguments]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(release, settings.run.id, CONTROLLER),
            "labels": {**pod["metadata"]["labels"], labels.MANAGED_BY: "imgsearch-controller"},
            "annotations": {labels.SPEC_HASH: spec_hash(1, settings), labels.TEMPLATE_HASH: _hash(pod)},
        },
        "spec": {
            "backoffLimit": settings.jobs.retries,
            "podFailurePolicy": {"rules": [DISRUPTED, _final("FailJob", ExitCode.FAILED)]},
            **_limits(replace(settings.jobs, deadline_seconds=None)),
            "template": pod,
        },
    }


def spec_hash(completions: int, settings: Settings) -> str:
    """A hash of the work: two Jobs with the same hash do the same. The number of pods at a time, the pod template of an
    upgraded release, the log settings and the target of the recall do not change it."""
    work = replace(
        settings, jobs=JobSettings(), log=LogSettings(), metrics=MetricsSettings(), index=IndexSettings()
    ).to_env()
    return _hash([completions, work])


def has_other_pods(template_hash: str | None, job: Mapping[str, Any]) -> bool:
    """Whether a Job with this hash of its pods has other pods than `job`. A Job of an earlier version has no hash, and
    counts as the same."""
    return bool(template_hash) and template_hash != job["metadata"]["annotations"].get(labels.TEMPLATE_HASH)


def must_be_same(existing: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Raises PermanentError where the existing Job of this name has another spec."""
    old, new = (manifest["metadata"].get("annotations", {}).get(labels.SPEC_HASH) for manifest in (existing, job))
    if old != new:
        raise PermanentError(
            f"Job {job['metadata']['name']} exists with another spec (spec {old}, this command has {new}). Delete it "
            "with `controller cleanup`, or use another --run"
        )


def final_codes(spec: Mapping[str, Any]) -> set[int]:
    """The exit codes after which a Job does not retry, from its spec."""
    rules = spec["podFailurePolicy"]["rules"]
    return {code for rule in rules if rule["action"] == "FailIndex" for code in rule["onExitCodes"]["values"]}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _names(release: str, component: str) -> dict[str, str]:
    return {labels.NAME: "imgsearch", labels.INSTANCE: release, labels.COMPONENT: component}


def _env(settings: Settings) -> dict[str, str]:
    """The environment variables of the pods. They do not need the settings of their Jobs."""
    return replace(settings, jobs=JobSettings()).to_env()


def _final(action: str, *more: ExitCode) -> dict[str, Any]:
    """The rule for exit codes after which a retry cannot help."""
    codes = sorted(int(code) for code in (ExitCode.USAGE, ExitCode.PERMANENT, *more))
    return {"action": action, "onExitCodes": {"operator": "In", "values": codes}}


def _limits(options: JobSettings) -> dict[str, Any]:
    limits = {"activeDeadlineSeconds": options.deadline_seconds, "ttlSecondsAfterFinished": options.ttl_seconds}
    return {name: value for name, value in limits.items() if value is not None}


def _pod(template: Mapping[str, Any], names: Mapping[str, str], env: Mapping[str, str]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "metadata": copy.deepcopy(dict(template.get("metadata") or {})),
        "spec": copy.deepcopy(dict(template["spec"])),
    }
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **names}
    # The API server fills in the defaults of a stored PodTemplate. The default restart policy is wrong for a Job.
    pod["spec"]["restartPolicy"] = "Never"
    for container in [*pod["spec"].get("initContainers", []), pod["spec"]["containers"][0]]:
        # In the order of the template, because a value may refer to an earlier variable: `$(NAME)`.
        entries = {entry["name"]: entry for entry in container.get("env", [])}
        entries.update({name: {"name": name, "value": env[name]} for name in sorted(env)})
        container["env"] = [*entries.values()]
    return pod
