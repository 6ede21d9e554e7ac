"""GPUs of nodes: how many pods fit, and which GPUs a run has used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from controller.backends.kubernetes.backend import KubernetesBackend
from controller.jobs.annotations import JobRecord
from controller.jobs.state import Stage
from controller.jobs.usage import Gpu
from imgsearch import labels
from tests.controller.apifaults import refusal
from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.pipelines import Connect, job, wait_until
from tests.controller.nodes import AMD, NVIDIA, PARTS
from tests.controller.objects import condition, pod, release


def node(gpus: int, resource: str = NVIDIA) -> dict[str, Any]:
    allocatable = {"cpu": "8", **({resource: str(gpus)} if gpus else {})}
    return {"metadata": {"name": f"{resource.replace('/', '-')}-{gpus}"}, "status": {"allocatable": allocatable}}


@pytest.mark.parametrize(
    ("gpus_per_pod", "nodes", "parallelism"), [(1, [4, 0, 2], 6), (2, [4, 1], 2), (1, [], 1), (4, [2], 1), (0, [4], 1)]
)
def test_parallelism_is_what_the_gpus_are_enough_for(
    backend: KubernetesBackend, server: ApiServer, gpus_per_pod: int, nodes: list[int], parallelism: int
) -> None:
    for template in release(gpus=gpus_per_pod)["podtemplates"]:
        server.put("podtemplates", template)
    for gpus in nodes:
        server.put("nodes", node(gpus))
    assert backend.parallelism() == parallelism


@pytest.mark.parametrize("resource", [*PARTS, AMD, "gpu.intel.com/i915"])
def test_a_gpu_may_have_any_name(backend: KubernetesBackend, server: ApiServer, resource: str) -> None:
    for template in release(gpus=1, resource=resource)["podtemplates"]:
        server.put("podtemplates", template)
    for other in (NVIDIA, "nvidia.com/mig-2g.10gb", resource):
        server.put("nodes", node(7, other))
    assert backend.parallelism() == 7


def test_who_may_not_look_at_nodes_gets_one_shard_at_a_time(backend: KubernetesBackend, server: ApiServer) -> None:
    for template in release(gpus=1)["podtemplates"]:
        server.put("podtemplates", template)
    server.put("nodes", node(4))
    server.inject("list", "nodes", refusal(403, "nodes is forbidden"))
    assert backend.parallelism() == 1


SPOT = {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-spot": "true"}


REQUESTED = {labels.ACCELERATOR: "T4", labels.SPOT: "never"}


def put_node(server: ApiServer, name: str, node_labels: Mapping[str, str]) -> None:
    """A node that takes no pods any more, as a spot node does in its last seconds."""
    server.put("nodes", {"metadata": {"name": name, "labels": dict(node_labels)}, "spec": {"unschedulable": True}})


def put_gpu_job(backend: KubernetesBackend, server: ApiServer, *names: str, resource: str = NVIDIA) -> dict[str, Any]:
    """The embed Job, each of its pods on one of these nodes, one GPU for an hour; where no node tells, they asked for
    T4 and no spot nodes."""
    for template in release(gpus=1, resource=resource)["podtemplates"]:
        server.put("podtemplates", template)
    manifest = job(backend, completions=9)
    manifest["spec"]["template"]["metadata"]["annotations"] = REQUESTED
    created = server.put("jobs", manifest)
    for index, name in enumerate(names):
        server.put("pods", pod(index, "Succeeded", uid=created["metadata"]["uid"], message={}, node=name))
    return created


def test_gpu_hours_are_of_what_the_nodes_have(backend: KubernetesBackend, server: ApiServer) -> None:
    put_node(server, "a", SPOT)
    put_node(server, "b", {"nvidia.com/gpu.product": "NVIDIA-A10G"})
    put_node(server, "c", {"karpenter.sh/capacity-type": "spot"})
    put_gpu_job(backend, server, "a", "a", "b", "c", "gone")
    state = backend.jobs("r1")[Stage.EMBED]
    assert state.usage.by_gpu == {Gpu("L4", True): 2, Gpu("A10G", False): 1, Gpu("T4", True): 1, Gpu("T4", False): 1}
    assert state.usage.total == 5


@pytest.mark.parametrize(
    ("resource", "accelerator"),
    [*((part, "part of A10G") for part in PARTS), (AMD, "A10G"), ("gpu.intel.com/i915", "A10G")],
)
def test_a_gpu_of_any_name_has_hours(
    backend: KubernetesBackend, server: ApiServer, resource: str, accelerator: str
) -> None:
    put_node(server, "b", {"nvidia.com/gpu.product": "NVIDIA-A10G"})
    put_gpu_job(backend, server, "b", "b", resource=resource)
    assert backend.jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu(accelerator, False): 2}


def test_what_a_webhook_adds_to_pods_is_no_gpu(backend: KubernetesBackend, server: ApiServer) -> None:
    """The VPC resource controller of EKS gives a pod a network interface in this way."""
    put_node(server, "b", {"nvidia.com/gpu.product": "NVIDIA-A10G"})
    created = put_gpu_job(backend, server, "b")
    one = pod(0, "Succeeded", uid=created["metadata"]["uid"], message={}, node="b")
    one["spec"]["containers"][0]["resources"]["limits"]["vpc.amazonaws.com/pod-eni"] = "1"
    server.put("pods", one)
    assert backend.jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("A10G", False): 1}


def test_each_node_is_looked_at_once(backend: KubernetesBackend, server: ApiServer) -> None:
    put_node(server, "a", SPOT)
    gpu_job = put_gpu_job(backend, server, "a", "gone")
    for _ in range(9):
        backend.jobs("r1")
    assert server.count("list", "nodes") == 1
    server.remove("nodes", "a")
    put_node(server, "b", SPOT)
    server.put("pods", pod(2, "Succeeded", uid=gpu_job["metadata"]["uid"], message={}, node="b"))
    current = wait_until(backend, lambda jobs: jobs[Stage.EMBED].usage.total == 3)
    assert current[Stage.EMBED].usage.by_gpu == {Gpu("L4", True): 2, Gpu("T4", False): 1}
    assert server.count("list", "nodes") == 2


def test_a_run_without_gpus_looks_at_no_node(backend: KubernetesBackend, server: ApiServer) -> None:
    embed_job = server.put("jobs", job(backend))
    server.put("pods", pod(0, uid=embed_job["metadata"]["uid"], node="a"))
    assert backend.jobs("r1")[Stage.EMBED].usage.by_gpu == {}
    assert server.count("list", "nodes") == 0


def test_who_may_not_look_at_nodes_is_told_what_pods_asked_for(backend: KubernetesBackend, server: ApiServer) -> None:
    put_node(server, "a", SPOT)
    server.inject("list", "nodes", refusal(403, "nodes is forbidden"))
    put_gpu_job(backend, server, "a")
    for _ in range(9):
        assert backend.jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("T4", False): 1}
    assert server.count("list", "nodes") == 1, "the answer would be the same"


def test_what_ran_is_kept_on_a_job_that_has_ended(
    backend: KubernetesBackend, connect: Connect, server: ApiServer
) -> None:
    put_node(server, "a", SPOT)
    gpu_job = put_gpu_job(backend, server, "a")
    backend.jobs("r1")
    backend.wait(0)
    status = {"completedIndexes": "0", "conditions": [condition("Complete")]}
    server.put("jobs", {**server.get("jobs", gpu_job["metadata"]["name"]), "status": status})
    wait_until(backend, lambda jobs: jobs[Stage.EMBED].record != JobRecord())
    server.remove("nodes", "a")
    assert connect().jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("L4", True): 1}
