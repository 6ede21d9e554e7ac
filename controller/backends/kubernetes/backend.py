"""The Cluster of a Kubernetes: a release of the chart, whose PodTemplates say what the pods of its Jobs are."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Set
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.backends.kubernetes import pods
from controller.backends.kubernetes.api import AlreadyExists, Api, Object
from controller.backends.kubernetes.informer import Informer
from controller.backends.kubernetes.pods import PodState
from controller.gpus.nodes import labelled
from controller.jobs import manifests
from controller.jobs.results import Answer, answer, failure, progress
from controller.jobs.state import Elsewhere, Gpu, IndexReport, JobState, Phase, Stage, job_state, summed
from imgsearch import labels
from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.settings import LogSettings, Settings

log = logging.getLogger(__name__)

JOBS = ("batch/v1", "jobs")
PODS = ("v1", "pods")
LOGS = 5
LOG_LINES = 50
LOG_SECONDS = 5.0
"""So many running pods are asked how far they are, so often, in turn: a look costs the same for a run of any size."""
ERRAND_SECONDS = 300.0
"""Within that an errand has begun; one that runs may take longer."""
WORK_SECONDS = 3600.0
"""An evaluation reads every vector."""
POLL_SECONDS = 1.0


class Nodes:
    """What GPUs nodes have. Those that pods are on are looked at once: they may be gone when the costs are counted."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, Gpu] = {}
        self._allowed = True

    def by_gpu(self, hours: Mapping[str, float]) -> dict[Gpu, float]:
        """GPU hours by node, as GPU hours by what the node has; that of one that is gone or may not be seen is not
        known."""
        if self._allowed and (unknown := hours.keys() - self._known.keys()):
            self._look(unknown)
        return summed(*({self._known.get(name, Gpu()): held} for name, held in hours.items()))

    def _look(self, names: Set[str]) -> None:
        """One list for all of them: to list is the right that docs/gpu-pools.md asks for."""
        try:
            there = {node["metadata"]["name"]: Gpu(*labelled(node)) for node in self._api.nodes()}
        except PermanentError as error:
            self._allowed = False
            log.info("what pods run on is told by what they asked for: %s", error)
            return
        self._known |= {name: there.get(name, Gpu()) for name in names}


class RunInformer:
    """The Jobs that a label selector chooses and their pods, as states."""

    def __init__(
        self,
        api: Api,
        selector: str,
        nodes: Nodes,
        *,
        changed: threading.Event,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        records: bool,
    ) -> None:
        self._api = api
        self._nodes = nodes
        self._records = records
        self._following = False
        self._clock = clock
        self._now = now
        self._jobs: Informer[Object] = Informer(api, *JOBS, labels=selector, read=lambda job: job, changed=changed)
        # What a pod has said and used counts, also after it is gone.
        self._pods: Informer[PodState] = Informer(
            api, *PODS, labels=selector, read=pods.facts, changed=changed, keep=lambda pod: pod.result is not None
        )
        self._progress: dict[str, tuple[int, int]] = {}
        self._asked_of: dict[str, float] = {}
        self._refused: dict[str, dict[str, int]] = {}
        self._heard: set[str] = set()
        self._asked = self._looked = -LOG_SECONDS

    def states(self) -> dict[Stage, JobState]:
        """By stage, in their order. Whoever follows a run keeps on its Jobs what their pods have said."""
        found = {}
        for job in self._jobs.values():
            if "deletionTimestamp" in job["metadata"] or job["metadata"]["labels"][labels.COMPONENT] not in list(Stage):
                continue
            state = self._state(job)
            if job["metadata"]["uid"] not in self._heard and _unheard(state):
                state = self._hear(job)
            if self._records and self._following and state.phase.ended and not _unheard(state):
                self._record(job, state)
            found[state.stage] = state
        return {stage: found[stage] for stage in Stage if stage in found}

    def put(self, job: Object) -> None:
        self._jobs.put(job)

    def follow(self) -> None:
        self._following = True
        self._jobs.follow()
        self._pods.follow()

    def close(self) -> None:
        self._jobs.stop()
        self._pods.stop()

    def pod(self, index: int) -> PodState | None:
        return pods.latest(self._pods.values()).get(index)

    def _state(self, job: Object) -> JobState:
        own = [pod for pod in self._pods.values() if pod.job_uid == job["metadata"]["uid"]]
        speaking = pods.latest(own)
        self._ask([pod for pod in speaking.values() if pod.phase == "Running"])
        reports = {
            index: IndexReport(pod.result, *self._progress.get(pod.name, (0, 0))) for index, pod in speaking.items()
        }
        begun = job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"]
        return job_state(
            job,
            reports,
            waiting=pods.waiting(own) or self._refusals(job, own),
            waiting_since=pods.waiting_since(own),
            gpu_hours=self._nodes.by_gpu(pods.gpu_hours(own, self._now())),
            waits=pods.waits(own, job["spec"]["completions"], begun),
        )

    def _hear(self, job: Object) -> JobState:
        """The state with what its pods said last: their watch may be behind that of the Job. Asked once, since a pod
        that is not there any more says nothing."""
        uid = job["metadata"]["uid"]
        self._heard.add(uid)
        there, _ = self._api.select(*PODS, labels=f"{pods.JOB_UID}={uid}")
        for pod in there:
            self._pods.put(pod)
        return self._state(job)

    def _ask(self, running: list[PodState]) -> None:
        if not running or self._clock() - self._asked < LOG_SECONDS:
            return
        self._asked = self._clock()
        for pod in sorted(running, key=lambda pod: self._asked_of.get(pod.name, -LOG_SECONDS))[:LOGS]:
            self._asked_of[pod.name] = self._asked
            try:
                self._progress[pod.name] = progress(self._api.tail(pod.name, LOG_LINES).splitlines())
            except TemporaryError as error:  # its node does not answer, and so may those of the others
                log.debug("%s", error)
                break
            except ImgsearchError as error:  # it has just ended
                log.debug("%s", error)

    def _refusals(self, job: Object, own: list[PodState]) -> dict[str, int]:
        """Why a Job has no pod at all: what the controller-manager was refused, by a quota, say."""
        if own or job.get("status", {}).get("conditions") or job["spec"].get("suspend"):
            return {}
        uid = job["metadata"]["uid"]
        if self._clock() - self._looked >= LOG_SECONDS:
            self._looked = self._clock()
            events, _ = self._api.select("v1", "events", fields=f"involvedObject.uid={uid}")
            refused = [event["message"] for event in events if event.get("reason") == "FailedCreate"]
            self._refused[uid] = {refused[-1]: job["spec"]["parallelism"]} if refused else {}
        return self._refused.get(uid, {})

    def _record(self, job: Object, state: JobState) -> None:
        if labels.RECORD in job["metadata"]["annotations"]:
            return
        try:
            record = {labels.RECORD: json.dumps(state.to_record())}
            self.put(self._api.patch(*JOBS, state.name, {"metadata": {"annotations": record}}))
        except PermanentError as error:  # `status --watch` of somebody who may only read
            self._records = False
            log.info("nothing is kept on the Jobs: %s", error)


class KubernetesBackend:
    """One release. `jobs` and `wait` belong together: the first lists a run, the second begins to watch it."""

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
        self._nodes = Nodes(api)
        self._views: dict[str, RunInformer] = {}

    def settings(self) -> Settings:
        """What the release says of storage, store and model. Raises UsageError where there is no such release."""
        name = f"{self._release}-pipeline"
        try:
            return Settings.from_env(self._api.get("v1", "configmaps", name).get("data") or {})
        except NotFound as error:
            raise self._no_release(f"ConfigMap {name}") from error

    def template(self, stage: Stage) -> Mapping[str, Any]:
        return self._template(str(stage))

    def jobs(self, run: str) -> dict[Stage, JobState]:
        return self._view(run).states()

    def runs(self) -> list[str]:
        selector = f"{labels.INSTANCE}={self._release},{labels.RUN}"
        jobs, _ = self._api.select(*JOBS, labels=selector)
        jobs.sort(key=lambda job: job["metadata"]["creationTimestamp"])
        return list(dict.fromkeys(job["metadata"]["labels"][labels.RUN] for job in jobs))

    def create(self, job: Mapping[str, Any]) -> None:
        name = job["metadata"]["name"]
        while True:
            try:
                made = self._api.create(*JOBS, job)
                break
            except AlreadyExists:
                try:
                    there = self._api.get(*JOBS, name)
                except NotFound:
                    continue
            if "deletionTimestamp" in there["metadata"]:
                self._await_gone(name)
                continue
            manifests.must_be_same(there, job)
            made = there
            break
        if view := self._views.get(job["metadata"]["labels"][labels.RUN]):
            view.put(made)

    def check(self, job: Mapping[str, Any]) -> None:
        """Has the API server look at a Job that it does not keep; raises UsageError where it refuses it."""
        with suppress(AlreadyExists):
            self._api.create(*JOBS, job, dry_run=True)

    def delete(self, name: str) -> None:
        self._api.delete(*JOBS, name)
        self._await_gone(name)

    def widen(self, job: JobState, parallelism: int) -> None:
        made = self._api.patch(*JOBS, job.name, {"spec": {"parallelism": parallelism}})
        self._views[made["metadata"]["labels"][labels.RUN]].put(made)

    def note(self, job: JobState, elsewhere: Elsewhere) -> None:
        """Writes on a Job what came of it elsewhere. One that is finished by that is suspended: its pods that still
        wait would wake an autoscaler for nothing."""
        changes: Object = {"metadata": {"annotations": {labels.ELSEWHERE: json.dumps(elsewhere.to_json())}}}
        if elsewhere.finished:
            changes["spec"] = {"suspend": True}
        made = self._api.patch(*JOBS, job.name, changes)
        self._views[made["metadata"]["labels"][labels.RUN]].put(made)

    def wait(self, seconds: float) -> None:
        for view in self._views.values():
            view.follow()
        self._changed.wait(seconds)
        self._changed.clear()

    def tell(self, job: JobState, reason: str, sentence: str, *, warning: bool) -> None:
        try:
            self._tell(job.name, reason, sentence, warning=warning)
        except ImgsearchError as error:  # the run is what it is
            log.warning("no Event tells of it at Job %s: %s", job.name, error)

    def _tell(self, job: str, reason: str, sentence: str, *, warning: bool) -> None:
        about = self._api.get(*JOBS, job)["metadata"]
        now = self._now().isoformat(timespec="seconds").replace("+00:00", "Z")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{job}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job,
                "namespace": self._api.namespace,
                "uid": about["uid"],
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": sentence[:1024],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "imgsearch-controller"},
        }
        with suppress(AlreadyExists):  # by a try whose answer was lost
            self._api.create("v1", "events", event)

    def call(self, program: str, verb: str, settings: Settings) -> Answer:
        # Quiet: a pod's log has both of its streams in it.
        quiet = replace(settings, log=LogSettings(level="CRITICAL"))
        name = f"{self._release}-{verb}-{uuid.uuid4().hex[:6]}"
        template = self._template(manifests.errand_pod(verb))
        job = manifests.errand(program, verb, quiet, template, release=self._release, name=name)
        try:
            with suppress(AlreadyExists):  # by a try whose answer was lost
                self._api.create(*JOBS, job)
            return answer(self._api.log(self._ended(name)))
        except ValueError as error:
            raise TemporaryError(f"{program} {verb} has not answered as it should: {error}") from error
        finally:
            self._api.delete(*JOBS, name)

    def log(self, run: str, stage: Stage, index: int) -> str:
        name = manifests.job_name(self._release, run, stage)
        there, _ = self._api.select(*PODS, labels=f"{pods.JOB}={name}")
        pod = pods.latest(map(pods.facts, there)).get(index)
        if pod is None:
            raise UsageError(f"run {run} has no pod of {stage} {index} any more: a log goes with its pod")
        return self._api.log(pod.name)

    def start_controller(self, job: Mapping[str, Any]) -> None:
        """Runs the controller itself as this Job; one that has ended makes room for it."""
        name = job["metadata"]["name"]
        if any(each.get("status", {}).get("conditions") for each in self._named(name)):
            self.delete(name)
        self.create(job)

    def controller_job(self, arguments: list[str], settings: Settings) -> dict[str, Any]:
        template = self._template(manifests.CONTROLLER)
        return manifests.detached(arguments, settings, template, release=self._release)

    def troubles(self) -> list[str]:
        """Pods of the release itself that do not run, with what Kubernetes says of them."""
        there, _ = self._api.select(*PODS, labels=f"{labels.INSTANCE}={self._release},!{labels.RUN},!{labels.ERRAND}")
        return [trouble for pod in there if (trouble := pods.trouble(pod))]

    def parallelism(self) -> int:
        """As many as the cluster's GPUs are enough for; at least 1, also where none of them is seen."""
        asked = pods.gpus(self.template(Stage.EMBED)["spec"])
        try:
            nodes = self._api.nodes() if asked else []
        except PermanentError:  # this account may not look at nodes
            nodes = []
        room = [
            sum(int(node["status"]["allocatable"].get(name, 0)) for node in nodes) // n for name, n in asked.items()
        ]
        return max(1, min(room, default=1))

    def stop(self) -> None:
        for view in self._views.values():
            view.close()

    def _template(self, stage: str) -> Mapping[str, Any]:
        name = f"{self._release}-{stage}"
        try:
            return self._api.get("v1", "podtemplates", name)["template"]  # type: ignore[no-any-return]
        except NotFound as error:
            raise self._no_release(f"PodTemplate {name}") from error

    def _no_release(self, missing: str) -> UsageError:
        return UsageError(
            f"namespace {self._api.namespace} has no release {self._release!r} of the chart ({missing} is not there): "
            f"helm install {self._release} … -n {self._api.namespace}, or name yours with --release and --namespace"
        )

    def _view(self, run: str) -> RunInformer:
        if run not in self._views:
            selector = f"{labels.INSTANCE}={self._release},{labels.RUN}={run}"
            self._views[run] = RunInformer(
                self._api, selector, self._nodes, changed=self._changed, clock=self._clock, now=self._now, records=True
            )
        return self._views[run]

    def _ended(self, errand: str) -> str:
        """The pod of an errand once it has ended; raises what it says went wrong, TemporaryError where it does not
        begin or end in time."""
        changed = threading.Event()
        view = RunInformer(
            self._api,
            f"{labels.ERRAND}={errand}",
            self._nodes,
            changed=changed,
            clock=self._clock,
            now=self._now,
            records=False,
        )
        begun = self._clock()
        with closing(view):
            view.follow()
            while True:
                state, pod = view.states().get(Stage.INGEST), view.pod(0)
                if state is None or (state.phase is Phase.COMPLETE and pod is None):
                    raise TemporaryError(f"Job {errand} has gone before its answer was read: try again")
                if state.phase is Phase.COMPLETE and pod:
                    return pod.name
                if state.phase is Phase.FAILED:
                    raise failure(pod.code if pod else None, next(iter(state.errors().values()), state.reason))
                patience = WORK_SECONDS if pod and pod.phase == "Running" else ERRAND_SECONDS
                if self._clock() >= begun + patience:
                    why = next(iter(state.waiting), "it is still at work")
                    raise TemporaryError(f"Job {errand} has not answered in {patience:.0f} s: {why}")
                changed.wait(POLL_SECONDS)
                changed.clear()

    def _await_gone(self, name: str) -> None:
        # One that is not being deleted is another of its name: a second controller was faster.
        while any("deletionTimestamp" in job["metadata"] for job in self._named(name)):
            self._changed.wait(POLL_SECONDS)
            self._changed.clear()

    def _named(self, name: str) -> list[Object]:
        return self._api.select(*JOBS, fields=f"metadata.name={name}")[0]


def _unheard(state: JobState) -> bool:
    """Whether it has ended with an index that nothing is known of."""
    ended = state.succeeded | state.failed if state.phase.ended else frozenset()
    ended -= state.elsewhere.succeeded | state.elsewhere.failed.keys()  # it has said all
    return any(state.indexes.get(index, IndexReport()).result is None for index in ended)
