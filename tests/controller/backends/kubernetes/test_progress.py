"""Progress and logs of a run, read from its pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.backends.kubernetes.api import PAGE
from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.kubernetes.progress import LOG_SECONDS, LOGS
from controller.backends.kubernetes.queues import NO_KUEUE, NOT_ALLOWED
from controller.jobs.state import Phase, Stage
from imgsearch.errors import UsageError
from tests.controller.apifaults import refusal
from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.pipelines import job, wait_until
from tests.controller.conftest import Clock
from tests.controller.objects import condition, pod


def test_the_log_of_a_shard_is_that_of_its_last_pod(backend: KubernetesBackend, server: ApiServer) -> None:
    server.put("pods", pod(1, "Failed", name="first", created="2026-01-01T00:00:00Z", terminated={"exitCode": 3}))
    server.put("pods", pod(1, "Running", name="second", created="2026-01-01T00:01:00Z"))
    server.put("pods", pod(2, "Running", name="other"))
    server.logs.update(first="old\n", second="new\n", other="another\n")
    assert backend.log("r1", Stage.EMBED, 1) == "new\n"
    with pytest.raises(UsageError, match="run r1 has no pod of embed 7"):
        backend.log("r1", Stage.EMBED, 7)


def test_why_a_job_gets_no_pods_is_told(backend: KubernetesBackend, server: ApiServer, clock: Clock) -> None:
    backend.create(job(backend))
    assert backend.jobs("r1")[Stage.EMBED].waiting == {}
    metadata = server.get("jobs", "team-r1-embed")["metadata"]
    server.put(
        "events",
        {
            "metadata": {"name": "refused"},
            "involvedObject": {"uid": metadata["uid"]},
            "reason": "FailedCreate",
            "message": "exceeded quota: gpus",
        },
    )
    clock.now += LOG_SECONDS
    for _ in range(10):
        assert backend.jobs("r1")[Stage.EMBED].waiting == {"exceeded quota: gpus": 2}
    assert server.count("list", "events") == 2


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
