"""Runs Jobs in a Kubernetes cluster, with the PodTemplates of a release of the chart."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from controller.backends.kubernetes import pods
from controller.backends.kubernetes.api import Api, Object
from controller.backends.kubernetes.errors import AlreadyExists
from controller.backends.kubernetes.gpus import NodeGpus
from controller.backends.kubernetes.progress import JOBS, PODS, POLL_SECONDS, RunProgress
from controller.backends.kubernetes.query_jobs import run_query_job
from controller.backends.kubernetes.troubles import Owner, Troubles
from controller.gpus.nodes import pods_for
from controller.gpus.pods import requested_gpus
from controller.jobs import manifests
from controller.jobs.annotations import Overflow
from controller.jobs.results import Output
from controller.jobs.state import JobState, Stage, job_phase
from imgsearch import labels
from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.settings import Settings


class KubernetesBackend:
    """The Jobs of one release. Call `jobs` before `wait`: the first lists a run, the second starts to watch it."""

    def __init__(
        self,
        api: Api,
        release: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._release = release
        self._clock = clock
        self._now = now
        self._changed = threading.Event()
        self._nodes = NodeGpus(api)
        self._troubles = Troubles(api, clock=clock, now=now)
        self._runs: dict[str, RunProgress] = {}

    def settings(self) -> Settings:
        """The release's settings of storage, store and model. Raises UsageError where there is no such release."""
        return Settings.from_env(self._config_map().get("data") or {})

    def template(self, stage: Stage) -> Mapping[str, Any]:
        return self._template(str(stage))

    def jobs(self, run: str) -> dict[Stage, JobState]:
        if run not in self._runs:
            selector = f"{labels.INSTANCE}={self._release},{labels.RUN}={run}"
            self._runs[run] = self._progress(selector, self._changed, records=True)
        return self._runs[run].states()

    def create(self, job: Mapping[str, Any]) -> None:
        name = job["metadata"]["name"]
        owned = self._owned(job)
        while True:
            try:
                stored = self._api.create(*JOBS, owned)
                break
            except AlreadyExists:
                try:
                    stored = self._api.get(*JOBS, name)
                except NotFound:
                    continue
            if "deletionTimestamp" in stored["metadata"]:
                self._await_deletion(name)
                continue
            manifests.must_be_same(stored, job)
            break
        self._put(stored)

    def check(self, job: Mapping[str, Any]) -> None:
        """Lets the API server validate a Job without creating it. Raises UsageError for an invalid one."""
        with suppress(AlreadyExists):
            self._api.create(*JOBS, job, dry_run=True)

    def delete(self, name: str) -> None:
        self._api.delete(*JOBS, name)
        self._await_deletion(name)

    def widen(self, job: JobState, parallelism: int) -> None:
        self._put(self._api.patch(*JOBS, job.name, {"spec": {"parallelism": parallelism}}))

    def annotate(self, job: JobState, overflow: Overflow) -> None:
        """Stores the results of rented machines on a Job. A Job that these finish is suspended: its pods that still
        wait would make an autoscaler add nodes."""
        changes: Object = {"metadata": {"annotations": {labels.OVERFLOW: json.dumps(overflow.to_json())}}}
        if overflow.finished:
            changes["spec"] = {"suspend": True}
        self._put(self._api.patch(*JOBS, job.name, changes))

    def wait(self, seconds: float) -> None:
        for progress in self._runs.values():
            progress.follow()
        self._changed.wait(seconds)
        self._changed.clear()

    def close(self) -> None:
        for progress in self._runs.values():
            progress.close()

    def runs(self) -> list[str]:
        selector = f"{labels.INSTANCE}={self._release},{labels.RUN}"
        jobs, _ = self._api.select(*JOBS, labels=selector)
        jobs.sort(key=lambda job: job["metadata"]["creationTimestamp"])
        return list(dict.fromkeys(job["metadata"]["labels"][labels.RUN] for job in jobs))

    def call(self, program: str, verb: str, settings: Settings) -> Output:
        name = f"{self._release}-{verb}-{uuid.uuid4().hex[:6]}"
        template = self._template(manifests.query_pod(verb))
        job = manifests.query_job(program, verb, manifests.quiet(settings), template, release=self._release, name=name)
        return run_query_job(self._api, self._owned(job), f"{program} {verb}", self._progress, clock=self._clock)

    def log(self, run: str, stage: Stage, index: int) -> str:
        name = manifests.job_name(self._release, run, stage)
        listed, _ = self._api.select(*PODS, labels=f"{pods.JOB_NAME}={name}")
        pod = pods.latest(map(pods.pod_state, listed)).get(index)
        if pod is None:
            raise UsageError(f"run {run} has no pod of {stage} {index}: the log was deleted with the pod")
        return self._api.log(pod.name)

    def troubles(self) -> list[str]:
        """Pods of the release itself that are not ready or cannot be created, with the reasons."""
        of_release = f"{labels.INSTANCE}={self._release}"
        listed, _ = self._api.select(*PODS, labels=f"{of_release},!{labels.RUN},!{labels.QUERY}")
        detached = f"{of_release},{labels.COMPONENT}={manifests.CONTROLLER},{labels.RUN}"
        controllers, _ = self._api.select(*PODS, labels=detached)
        listed += [pod for pod in controllers if pod["status"].get("phase") == "Pending"]
        creating = self._troubles.creating() if any(map(pods.is_creating, listed)) else {}
        return [trouble for pod in listed if (trouble := pods.trouble(pod, creating))] + [
            f"{kind} {name} cannot create a pod: {reason}" for (kind, name), reason in self._refused_owners().items()
        ]

    def parallelism(self) -> int:
        """The number of pods for which the cluster has GPUs; at least 1."""
        requested = requested_gpus(self.template(Stage.EMBED)["spec"])
        try:
            return max(1, pods_for(self._api.nodes(), requested)) if requested else 1
        except PermanentError:  # this account is not allowed to list nodes
            return 1

    def start_controller(self, job: Mapping[str, Any]) -> None:
        """Creates the Job that runs the controller itself, after it has deleted one that has ended, or one that has not
        begun and has other pods."""
        name = job["metadata"]["name"]
        if any(self._is_outdated(existing, job) for existing in self._named(name)):
            self.delete(name)
        self.create(job)

    def controller_job(self, arguments: list[str], settings: Settings) -> dict[str, Any]:
        template = self._template(manifests.CONTROLLER)
        return manifests.detached(arguments, settings, template, release=self._release)

    def _refused_owners(self) -> dict[Owner, str]:
        """The reasons why objects of the release itself, and not of a run, cannot create pods."""
        refused = self._troubles.refused()
        chroma = ("StatefulSet", f"{self._release}-chroma")
        searcher = re.compile(f"{re.escape(self._release)}-searcher-[^-]+")
        # Only the last one: an upgrade leaves the others with no pods to create.
        searchers = [owner for owner in refused if owner[0] == "ReplicaSet" and searcher.fullmatch(owner[1])][-1:]
        controllers = f"{labels.INSTANCE}={self._release},{labels.COMPONENT}={manifests.CONTROLLER}"
        jobs = self._api.select(*JOBS, labels=controllers)[0] if any(kind == "Job" for kind, _ in refused) else []
        own = [chroma, *searchers, *(("Job", job["metadata"]["name"]) for job in jobs)]
        return {owner: refused[owner] for owner in own if owner in refused}

    def _config_map(self) -> Object:
        name = f"{self._release}-pipeline"
        try:
            return self._api.get("v1", "configmaps", name)
        except NotFound as error:
            raise self._no_release(f"ConfigMap {name}") from error

    def _owned(self, job: Mapping[str, Any]) -> Object:
        """A Job that Kubernetes deletes with the release, after `helm uninstall`. An upgrade keeps the ConfigMap. It is
        read for each Job: the release may have been installed again, and a Job of a deleted owner is deleted.

        It does not block the deletion of its owner: that needs a right on the owner in some clusters
        (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#ownerreferencespermissionenforcement)."""
        metadata = self._config_map()["metadata"]
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"]}
        return {**job, "metadata": {**job["metadata"], "ownerReferences": [owner]}}

    def _template(self, stage: str) -> Mapping[str, Any]:
        name = f"{self._release}-{stage}"
        try:
            return self._api.get("v1", "podtemplates", name)["template"]  # type: ignore[no-any-return]
        except NotFound as error:
            raise self._no_release(f"PodTemplate {name}") from error

    def _no_release(self, missing: str) -> UsageError:
        return UsageError(
            f"namespace {self._api.namespace} has no release {self._release!r} of the chart ({missing} does not "
            f"exist): install it with `helm install {self._release} … -n {self._api.namespace}`, or select yours with "
            "--release and --namespace"
        )

    def _progress(self, selector: str, changed: threading.Event, *, records: bool = False) -> RunProgress:
        return RunProgress(
            self._api,
            selector,
            self._nodes,
            self._troubles,
            changed=changed,
            clock=self._clock,
            now=self._now,
            records=records,
        )

    def _put(self, job: Object) -> None:
        """Shows a change in `jobs` before the watch has it."""
        if progress := self._runs.get(job["metadata"]["labels"][labels.RUN]):
            progress.put(job)

    def _is_outdated(self, existing: Object, job: Mapping[str, Any]) -> bool:
        if job_phase(existing).ended:
            return True
        template_hash = existing["metadata"]["annotations"].get(labels.TEMPLATE_HASH)
        if existing.get("status", {}).get("failed") or not manifests.has_other_pods(template_hash, job):
            return False
        selector = f"{pods.JOB_UID}={existing['metadata']['uid']}"
        return not any(pods.pod_state(pod).begun for pod in self._api.select(*PODS, labels=selector)[0])

    def _await_deletion(self, name: str) -> None:
        # A Job of this name that is not being deleted is a new one, of a second controller.
        while any("deletionTimestamp" in job["metadata"] for job in self._named(name)):
            self._changed.wait(POLL_SECONDS)
            self._changed.clear()

    def _named(self, name: str) -> list[Object]:
        return self._api.select(*JOBS, fields=f"metadata.name={name}")[0]
