"""Progress and logs of a run, read from its pods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from controller.backends.kubernetes.api import PAGE
from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.kubernetes.progress import LOG_SECONDS, LOGS, RECORD_SECONDS
from controller.backends.kubernetes.queues import NO_KUEUE, NOT_ALLOWED
from controller.backends.kubernetes.troubles import EVENT_SECONDS
from controller.jobs.state import JobState, Phase, Stage
from controller.run.steps import Finished
from imgsearch import labels
from imgsearch.errors import UsageError
from tests.controller.apifaults import refusal
from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.pipelines import Connect, job, pipeline, wait_until
from tests.controller.conftest import Clock
from tests.controller.objects import condition, pod
from tests.controller.workers import Ended, Unfinished, Workers, succeed


def test_the_log_of_a_shard_is_that_of_its_last_pod(backend: KubernetesBackend, server: ApiServer) -> None:
    server.put("pods", pod(1, "Failed", name="first", created="2026-01-01T00:00:00Z", terminated={"exitCode": 3}))
    server.put("pods", pod(1, "Running", name="second", created="2026-01-01T00:01:00Z"))
    server.put("pods", pod(2, "Running", name="other"))
    server.logs.update(first="old\n", second="new\n", other="another\n")
    assert backend.log("r1", Stage.EMBED, 1) == "new\n"
    with pytest.raises(UsageError, match="run r1 has no pod of embed 7"):
        backend.log("r1", Stage.EMBED, 7)


def event(reason: str, message: str, kind: str, name: str, minute: int, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{kind}.{name}.{reason}.{minute}"},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-01-01T01:{minute:02d}:00Z",
        **fields,
    }


QUOTA = 'pods "x" is forbidden: exceeded quota: gpus'


def test_why_a_job_gets_no_pods_or_too_few_is_told(backend: KubernetesBackend, server: ApiServer, clock: Clock) -> None:
    def refused() -> Mapping[str, int]:
        clock.now += EVENT_SECONDS
        return backend.jobs("r1")[Stage.EMBED].refused

    backend.create(job(backend))
    created = server.get("jobs", "team-r1-embed")
    assert refused() == {}
    server.put("events", event("FailedCreate", QUOTA, "Job", "team-r1-plan", 59))
    server.put("events", event("FailedCreate", "an earlier reason", "Job", "team-r1-embed", 57))
    server.put("events", event("FailedCreate", QUOTA, "Job", "team-r1-embed", 58))
    assert refused() == {QUOTA: 2}
    requests = server.count("list", "events")
    for _ in range(10):
        assert backend.jobs("r1")[Stage.EMBED].refused == {QUOTA: 2}
    assert server.count("list", "events") == requests
    # Kueue leaves this condition on a Job that it has admitted.
    server.put("jobs", {**created, "status": {"conditions": [condition("Suspended", "False")]}})
    server.put("pods", pod(0, uid=created["metadata"]["uid"]))
    backend.wait(0.0)
    wait_until(backend, lambda jobs: jobs[Stage.EMBED].refused == {QUOTA: 1})
    server.put("events", event("SuccessfulCreate", "Created pod: x", "Job", "team-r1-embed", 59))
    assert refused() == {}


def test_pods_that_mount_volumes_or_pull_images_have_their_last_event(
    backend: KubernetesBackend, server: ApiServer
) -> None:
    uid = server.put("jobs", job(backend))["metadata"]["uid"]
    for index, name in enumerate(["a", "b", "c"]):
        creating = {"waiting": {"reason": "ContainerCreating"}, "node": "n"}
        server.put("pods", pod(index, "Pending", uid=uid, name=name, **creating))
    server.put("events", event("FailedAttachVolume", "Multi-Attach error", "Pod", "a", 5))
    server.put("events", event("Pulling", 'Pulling image "x"', "Pod", "a", 1))
    server.put("events", event("FailedMount", "not found", "Pod", "b", 1))
    later = {"series": {"lastObservedTime": "2026-01-01T01:09:00.5Z"}, "lastTimestamp": None}
    server.put("events", event("FailedAttachVolume", "Multi-Attach error", "Pod", "b", 3, **later))
    assert backend.jobs("r1")[Stage.EMBED].waiting == {"Multi-Attach error": 2}


def test_what_cannot_create_its_pods_is_named(backend: KubernetesBackend, server: ApiServer) -> None:
    refused = [
        ("StatefulSet", "team-chroma"),
        ("ReplicaSet", "team-searcher-7c9f"),
        ("Job", "team-r1-controller"),
        ("Job", "team-reindex-29341"),
    ]
    others = [
        ("StatefulSet", "team-chroma-b"),
        ("ReplicaSet", "team-searcher-66f8"),  # of an earlier version of the release
        ("ReplicaSet", "team-b-searcher-7c9f"),
        ("ReplicaSet", "team-searcher-b-7c9f"),
        ("Job", "team-r1-embed"),  # `jobs` has it
        ("Job", "team-r2-controller"),  # it is deleted
        ("CronJob", "team-reindex"),
        ("DaemonSet", "team-chroma"),
    ]
    for kind, name in others:
        server.put("events", event("FailedCreate", QUOTA, kind, name, 58))
    for kind, name in refused:
        server.put("events", event("FailedCreate", QUOTA, kind, name, 59))
    server.put("events", event("FailedCreate", QUOTA, "StatefulSet", "team-chroma", 1))
    names = {labels.INSTANCE: "team", labels.COMPONENT: "controller"}
    for name in ("team-r1-controller", "team-reindex-29341"):
        server.put("jobs", {"metadata": {"name": name, "labels": names}, "spec": {}})
    controller = pod(name="c", phase="Pending", waiting={"reason": "ErrImagePull"})
    controller["metadata"]["labels"] |= names
    server.put("pods", controller)
    scheduled = pod(name="d", phase="Pending", waiting={"reason": "ErrImagePull"})
    scheduled["metadata"]["labels"] = names
    server.put("pods", scheduled)
    pods, owners = backend.troubles()[:2], backend.troubles()[2:]
    assert sorted(pods) == [f"pod {name} is not ready: ErrImagePull" for name in "cd"]
    assert sorted(owners) == sorted(f"{kind} {name} cannot create a pod: {QUOTA}" for kind, name in refused)


def test_an_old_event_is_no_trouble(backend: KubernetesBackend, server: ApiServer) -> None:
    server.put("events", event("FailedCreate", QUOTA, "StatefulSet", "team-chroma", 39))
    assert backend.troubles() == []


def test_without_the_right_to_list_events_there_is_no_trouble(backend: KubernetesBackend, server: ApiServer) -> None:
    server.inject("list", "events", refusal(403, "events is forbidden", reason="Forbidden"), times=9)
    assert backend.troubles() == []


NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4, 1 more"


def workload(uid: str, *, message: str, job_queue: str = "gpus") -> dict[str, Any]:
    """As Kueue makes it of a Job that it does not admit."""
    return {
        "metadata": {"name": f"job-{uid}", "labels": {"kueue.x-k8s.io/job-uid": uid}},
        "spec": {"queueName": job_queue},
        "status": {"conditions": [condition("QuotaReserved", "False", reason="Pending", message=message)]},
    }


def queued_job(backend: KubernetesBackend) -> dict[str, Any]:
    """The embed Job as it waits in the queue."""
    manifest = job(backend)
    manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    manifest["spec"]["suspend"] = True
    return manifest


class TestQueue:
    def test_a_job_in_a_queue_has_the_reason_of_kueue_until_it_is_admitted(
        self, backend: KubernetesBackend, server: ApiServer, clock: Clock
    ) -> None:
        created = server.put("jobs", queued_job(backend))
        server.put("workloads", workload("another", message="other"))
        server.put("workloads", workload(created["metadata"]["uid"], message=NO_QUOTA))
        for _ in range(10):
            state = backend.jobs("r1")[Stage.EMBED]
            assert (state.queue, state.queued, state.waiting) == ("gpus", NO_QUOTA, {})
        assert server.count("list", "workloads") == 1
        server.put("workloads", workload(created["metadata"]["uid"], message="LocalQueue gpus doesn't exist"))
        clock.now += LOG_SECONDS
        assert backend.jobs("r1")[Stage.EMBED].queued == "LocalQueue gpus doesn't exist"
        backend.wait(0)
        server.put("jobs", {**created, "spec": {**created["spec"], "suspend": False}})
        admitted = wait_until(backend, lambda jobs: not jobs[Stage.EMBED].queued)
        assert admitted[Stage.EMBED].queue == "gpus"

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (404, NO_KUEUE),
            (403, NOT_ALLOWED),
        ],
    )
    def test_what_cannot_be_read_is_told(
        self, backend: KubernetesBackend, server: ApiServer, code: int, reason: str
    ) -> None:
        server.put("jobs", queued_job(backend))
        server.inject("list", "workloads", refusal(code, "no"))
        assert backend.jobs("r1")[Stage.EMBED].queued == reason

    def test_a_job_that_rented_machines_have_finished_waits_in_no_queue(
        self, backend: KubernetesBackend, server: ApiServer
    ) -> None:
        manifest = queued_job(backend)
        manifest["metadata"]["annotations"]["imgsearch.dev/elsewhere"] = json.dumps({"succeeded": "0-2"})
        server.put("jobs", manifest)
        state = backend.jobs("r1")[Stage.EMBED]
        assert (state.phase, state.queued) == (Phase.COMPLETE, "")
        assert server.count("list", "workloads") == 0


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_look_costs_the_same_for_a_run_of_any_size(
    backend: KubernetesBackend, server: ApiServer, clock: Clock, size: int
) -> None:
    embed_job = server.put("jobs", job(backend, completions=size))
    for index in range(size):
        server.put("pods", pod(index, uid=embed_job["metadata"]["uid"], name=f"p-{index:05d}"))
        server.logs[f"p-{index:05d}"] = json.dumps({"done": 7, "total": 10}) + "\n"
    assert backend.jobs("r1")[Stage.EMBED].images_done == 7 * LOGS
    assert server.count("list") == 1 + -(-size // PAGE)
    request_count = len(server.requests)
    for _ in range(100):
        clock.now += 1.0
        backend.jobs("r1")
    assert len(server.requests) - request_count == LOGS * 100 / LOG_SECONDS
    log_count = LOGS * (1 + 100 / LOG_SECONDS)
    assert backend.jobs("r1")[Stage.EMBED].images_done == 7 * min(size, log_count), "they are asked in turn"
    assert {request.verb for request in server.requests[request_count:]} == {"log"}


def test_a_node_that_does_not_answer_holds_nobody_up(
    backend: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    embed_job = server.put("jobs", job(backend))
    for index in range(3):
        server.put("pods", pod(index, uid=embed_job["metadata"]["uid"]))
    server.inject("log", "pods", refusal(500, "dial tcp 10.0.0.7:10250: no route to host"), times=99)
    assert backend.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE
    assert clock.slept == []
    assert server.count("log") == 1


def test_the_progress_and_the_cost_of_a_pod_stay_after_its_node_is_gone(
    connect: Connect, server: ApiServer, clock: Clock
) -> None:
    backend = connect()
    embed_job = job(backend)
    embed_job["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    uid = server.put("jobs", embed_job)["metadata"]["uid"]
    drained = pod(0, uid=uid, name="first", node="a", created="2026-01-01T00:00:00Z")
    forced = pod(1, uid=uid, name="other", node="b", started="2026-01-01T01:30:00Z")
    server.logs.update(first='{"done": 7, "total": 10}\n', other='{"done": 5, "total": 10}\n')
    for manifest in (drained, forced):
        server.put("pods", manifest)
    backend.jobs("r1")
    backend.wait(0.0)
    ended = {"exitCode": 143, "finishedAt": "2026-01-01T01:00:10Z"}
    server.put("pods", pod(0, "Failed", uid=uid, name="first", node="a", terminated=ended))
    server.remove("pods", "first")
    server.put("pods", {**forced, "metadata": {**forced["metadata"], "deletionTimestamp": "2026-01-01T01:45:00Z"}})
    server.remove("pods", "other")
    server.put("pods", pod(0, uid=uid, name="second", node="c", started="2026-01-01T01:59:00Z"))
    server.logs["second"] = '{"done": 4, "total": 10}\n'

    def embed(of: KubernetesBackend) -> JobState:
        return of.jobs("r1")[Stage.EMBED]

    hours = 2 * (1 + 1 / 4 + 1 / 60)
    wait_until(backend, lambda jobs: jobs[Stage.EMBED].usage.total == pytest.approx(hours))
    clock.now += RECORD_SECONDS
    assert (embed(backend).images_done, embed(backend).usage.total) == (12, pytest.approx(hours))
    later = connect()
    assert (embed(later).images_done, embed(later).usage.total) == (12, pytest.approx(hours, abs=1e-5))
    server.logs["second"] = '{"done": 9, "total": 10}\n'
    clock.now += RECORD_SECONDS
    assert embed(backend).images_done == 9 + 5
    written = server.count("patch")
    clock.now += RECORD_SECONDS
    assert embed(backend).images_done == 14
    assert server.count("patch") == written, "without a change, nothing is written"


def test_a_node_that_does_not_answer_is_recorded_once(
    backend: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    looks = 0

    def show(jobs: Mapping[Stage, JobState]) -> None:
        nonlocal looks
        looks += Stage.EMBED in jobs and bool(jobs[Stage.EMBED].lost_nodes)
        if looks == 3:
            complete = {"completedIndexes": "0-2", "conditions": [condition("Complete")]}
            server.put("jobs", {**server.get("jobs", "team-r1-embed"), "status": complete})

    def behave(command: list[str], index: int) -> Ended | Unfinished:
        return stuck if command[-1] == "embed" else succeed(command, index)

    stuck = Unfinished(node="gpu-7", ends_by="2026-01-01T01:58:59Z")
    with Workers(server, behave):
        outcome, _ = pipeline(backend, show).run()
    assert outcome == Finished()
    events = {event["reason"]: event for event in server.objects("events")}
    assert [event["reason"] for event in server.objects("events")].count("NodeLost") == 1
    problem = "node gpu-7 does not answer (since 2026-01-01T01:58:59Z), so "
    assert events["NodeLost"]["message"].startswith(problem)
