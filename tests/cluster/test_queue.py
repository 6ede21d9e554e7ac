"""A real Kueue admits the embedding: within its quota, in the order of priorities, and with a reason where it does not.

The objects are those of https://kueue.sigs.k8s.io/docs/tasks/manage/administer_cluster_quotas/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import CLIENT, COPIES, FEW, need_photos
from tests.cluster.inspector import Inspector
from tests.cluster.load import pod as pod_of
from tests.cluster.world import RELEASE, World, command, wait_until

# Until the webhooks of Kueue answer, nobody can create a pod.
pytestmark = pytest.mark.alone

QUEUE = "gpus"
MANY = "/sources/photos/many"
URGENT_SECONDS = 20
FAILURES = "batch.kubernetes.io/job-index-failure-count"


@pytest.fixture(scope="module")
def queue(world: World) -> Iterator[str]:
    """A LocalQueue with quota for one pod. Its ClusterQueue preempts for a higher priority."""
    command("IMGSEARCH_TEST_KUEUE", seconds=900)
    name = world.namespace  # of objects without a namespace
    quotas = [{"name": "cpu", "nominalQuota": "64"}, {"name": "memory", "nominalQuota": "256Gi"}]
    quotas.append({"name": "pods", "nominalQuota": "1"})
    objects = [
        kueue_object("ResourceFlavor", name),
        kueue_object(
            "ClusterQueue",
            name,
            spec={
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {
                        "coveredResources": [quota["name"] for quota in quotas],
                        "flavors": [{"name": name, "resources": quotas}],
                    }
                ],
            },
        ),
        kueue_object("LocalQueue", QUEUE, spec={"clusterQueue": name}),
        kueue_object("WorkloadPriorityClass", name, value=1000, description="urgent"),
    ]
    wait_until(lambda: is_applied(world, objects), "the webhooks of Kueue answer")
    try:
        yield QUEUE
    finally:
        for manifest in reversed(objects):
            kind = f"{manifest['kind'].lower()}.kueue.x-k8s.io"
            world.kubectl("delete", kind, manifest["metadata"]["name"], "--wait=false", check=False)


def kueue_object(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, **fields}


def is_applied(world: World, objects: list[dict[str, Any]]) -> bool:
    try:
        world.apply(*objects)
    except RuntimeError:
        return False
    return True


def times(pod: dict[str, Any]) -> tuple[str, str]:
    """The start and the end of a pod that has ended."""
    (container,) = pod["status"]["containerStatuses"]
    return pod["status"]["startTime"], container["state"]["terminated"]["finishedAt"]


def test_with_quota_for_one_pod_one_runs(world: World, queue: str, photos: int) -> None:
    options = ("--run", "queued", "--index", "queued", "--shard-size", str(-(-photos // 2)), "--parallelism", "2")
    completed = world.controller("run-pipeline", FEW, *options, "--set", f"jobs.queue={queue}")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    job = world.job("queued", "embed")
    assert job is not None
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue
    assert job["spec"]["parallelism"] == 1
    first, second = sorted(map(times, world.pods_of("queued")))
    assert first[1] <= second[0]


def test_a_preempted_job_resumes_and_loses_no_work_and_no_retry(
    world: World, inspector: Inspector, queue: str, photos: int
) -> None:
    need_photos(photos, at_least=64)  # or it is done before it is preempted
    options = ("--run", "preempted", "--index", "preempted", "--parallelism", "1", "--set", f"jobs.queue={queue}")
    with world.controlling("run-pipeline", MANY, *options, "--set", "run.part_images=40") as process:
        wait_until(lambda: inspector.half_done("preempted"), "a shard is half done", seconds=300)
        world.apply(urgent(world.namespace))
        stopped = wait_until(lambda: waits_in(world, "preempted", queue), "status says that it is preempted")
        # Kueue says by whom at first, and then what is missing.
        assert "Preempted" in stopped or "insufficient unused quota" in stopped
        wait_until(lambda: not world.pods("embed", phase="Running"), "its pod has ended")
        part_times = inspector.parts("preempted")
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert f"{photos * COPIES:,} images searchable" in output
    assert {name: time for name, time in inspector.parts("preempted").items() if name in part_times} == part_times
    last = max(world.pods_of("preempted"), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    assert last["metadata"]["annotations"][FAILURES] == "0"
    assert world.get("job", "urgent")["status"]["succeeded"] == 1


def waits_in(world: World, run: str, queue: str) -> str:
    """The reason that Kueue gives; empty while the Job does not wait in this queue, or has no reason yet."""
    prefix, reason = f"{queue}: ", str(world.embedding(run).get("queued", ""))
    return reason.removeprefix(prefix) if reason.startswith(prefix) and "not decided" not in reason else ""


def urgent(priority: str) -> dict[str, Any]:
    """A Job of one short pod in the same queue, with a higher priority."""
    pod = pod_of("urgent", CLIENT, ["sleep", str(URGENT_SECONDS)], labels={"app": "urgent"})
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    names = {"kueue.x-k8s.io/queue-name": QUEUE, "kueue.x-k8s.io/priority-class": priority}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "urgent", "labels": names},
        "spec": {"suspend": True, "template": {"metadata": pod["metadata"], "spec": pod["spec"]}},
    }


def test_a_queue_that_does_not_exist_is_named_with_the_reason(world: World, queue: str) -> None:
    options = ("--run", "nowhere", "--index", "nowhere", "--set", "jobs.queue=nowhere")
    with world.controlling("run-pipeline", FEW, *options):
        reason = wait_until(lambda: waits_in(world, "nowhere", "nowhere"), "status has the reason", seconds=200)
        assert reason == "LocalQueue nowhere doesn't exist"
        assert f"embed: waits in queue nowhere: {reason}" in world.controller("status", "nowhere").stdout
        assert world.pods_of("nowhere") == []
    assert world.controller("stop", "nowhere").returncode == 0


def test_the_release_with_a_queue_may_read_why_it_waits(world: World, values: dict[str, Any], queue: str) -> None:
    account = f"system:serviceaccount:{world.namespace}:{RELEASE}-controller"
    question = ("auth", "can-i", "list", "workloads.kueue.x-k8s.io", f"--as={account}")
    with pytest.raises(RuntimeError):  # it exits with 1 for "no"
        world.kubectl(*question)
    world.install({**values, "pipeline": {**values["pipeline"], "queue": queue}})
    try:
        assert world.kubectl(*question).strip() == "yes"
    finally:
        world.install(values)
