"""GPU pools on a real cluster, found by SkyPilot and by our own look at nodes: what there is, what is free, who may
know it, and that pods go there, now or when the capacity comes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import EMBEDDER, FEW
from tests.cluster.load import pod as pod_of
from tests.cluster.world import World, wait_until
from tests.programs import CONTROLLER, ROOT

LABEL = "cloud.google.com/gke-accelerator"
SKY = [str(ROOT / ".venv-sky" / "bin" / "python"), *CONTROLLER[1:]]
NO_NODE = ("--accelerator", "H100:1", "--set", "jobs.autoscaler=gke")

pytestmark = pytest.mark.gpu_node


@pytest.fixture(params=["skypilot", "nodes"])
def finder(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> World:
    """The release, with a controller that finds GPUs in either way."""
    return world if request.param == "nodes" else found_by_skypilot(world, tmp_path)


def found_by_skypilot(world: World, folder: Path) -> World:
    return World(world.namespace, program=SKY, env={"SKY_RUNTIME_DIR": str(folder)})


def l4(world: World) -> dict[str, Any]:
    """The row of `pools` for the test cluster's GPUs."""
    (row,) = [row for row in world.ask("pools") if row["accelerator"] == "L4"]
    return dict(row)


def test_pools_tells_what_there_is_and_follows_what_is_free(finder: World) -> None:
    offer = l4(finder)
    assert (offer["nodes"], offer["gpus"], offer["free"]) == (1, 2, 2)
    gpu_pod = pod_of("holder", EMBEDDER, ["sleep", "infinity"], labels={"app": "holder"})
    gpu_pod["spec"]["tolerations"] = [{"operator": "Exists"}]
    gpu_pod["spec"]["containers"][0].setdefault("resources", {})["limits"] = {"nvidia.com/gpu": "1", "memory": "64Mi"}
    finder.apply(gpu_pod)
    try:
        wait_until(lambda: l4(finder)["free"] == 1, "one GPU is held")
    finally:
        finder.kubectl("delete", "pod", "holder", "--grace-period=1")
    wait_until(lambda: l4(finder)["free"] == 2, "it is free again")


@pytest.mark.parametrize("rights", [[], ["nodes"], ["nodes", "pods"]], ids=" and ".join)
def test_who_may_not_look_is_told_which_right_is_missing(finder: World, tmp_path: Path, rights: list[str]) -> None:
    with account(finder, tmp_path, rights) as env:
        limited = World(finder.namespace, program=finder.program, env={**finder.env, **env})
        completed = limited.controller("pools", "--output", "json")
    if "nodes" not in rights:
        assert completed.returncode == 3
        assert re.search("this account .* list (the )?nodes", completed.stderr)
        return
    (row,) = [row for row in json.loads(completed.stdout) if row["accelerator"] == "L4"]
    assert (row["gpus"], row["free"]) == (2, 2 if "pods" in rights else None)


@contextmanager
def account(world: World, folder: Path, rights: list[str]) -> Iterator[dict[str, str]]:
    """A kubeconfig of an account that may list these, as the environment that names it."""
    name = f"{world.namespace}-looker"
    cluster_wide = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    world.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "looker"}},
        {
            **cluster_wide,
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": rights, "verbs": ["list"]}] if rights else [],
        },
        {
            **cluster_wide,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "looker", "namespace": world.namespace}],
        },
    )
    config = yaml.safe_load(world.kubectl("config", "view", "--raw", "--minify", "--flatten"))
    config["users"][0]["user"] = {"token": world.kubectl("create", "token", "looker").strip()}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    try:
        yield {"KUBECONFIG": str(file)}
    finally:
        world.kubectl("delete", "clusterrole,clusterrolebinding", name)


def test_every_index_runs_on_the_gpus_that_were_asked_for(
    world: World, gpu_node: str, photos: int, tmp_path: Path
) -> None:
    finder = found_by_skypilot(world, tmp_path)
    options = (
        "--run",
        "pools",
        "--index",
        "pools",
        "--shard-size",
        str(-(-photos // 2)),
        "--accelerator",
        "L4:1,A10G:1",
    )
    completed = finder.controller("run-pipeline", FEW, *options, "--max-parallelism", "2", "--spot", "prefer")
    assert completed.returncode == 0, completed.stderr
    assert nodes_of(finder, "pools") == {gpu_node}
    assert parallelism(finder, "pools") == 2


def nodes_of(world: World, run: str) -> set[str]:
    """The nodes on which the run has embedded."""
    pods = [pod for pod in world.pods("embed") if pod["metadata"]["labels"]["imgsearch.dev/run"] == run]
    return {pod["spec"]["nodeName"] for pod in pods}


def parallelism(world: World, run: str) -> int:
    job = world.job(run, "embed")
    assert job is not None
    return int(job["spec"]["parallelism"])


def test_a_gpu_that_no_node_has_is_told_at_once(finder: World) -> None:
    for accelerator, phrase in (("H100", "H100"), ("L4:3", "a pod uses one GPU")):
        completed = finder.controller("run-pipeline", FEW, "--run", "never", "--accelerator", accelerator)
        assert completed.returncode == 2
        assert phrase in completed.stderr
        assert finder.job("never", "plan") is None


def test_capacity_that_arrives_later_is_used(world: World, gpu_node: str) -> None:
    with world.controlling("run-pipeline", FEW, "--run", "late", "--index", "late", *NO_NODE) as process:
        wait_until(lambda: is_waiting(world, "late"), "status says since when the pods wait", seconds=200)
        world.kubectl("label", "node", gpu_node, f"{LABEL}=nvidia-h100-80gb", "--overwrite")
        try:
            output, _ = process.communicate(timeout=400)
        finally:
            world.kubectl("label", "node", gpu_node, f"{LABEL}=nvidia-l4", "--overwrite")
    assert process.returncode == 0, output
    assert nodes_of(world, "late") == {gpu_node}


def is_waiting(world: World, run: str) -> bool:
    stages = {stage["stage"]: stage for stage in world.ask("status", run)["stages"]} if world.job(run, "embed") else {}
    return "embed" in stages and bool(stages["embed"]["waiting_since"] and stages["embed"]["waiting"])


def test_capacity_that_does_not_come_is_given_up_and_leaves_nothing_pending(world: World) -> None:
    options = ("--run", "gone", "--index", "gone", *NO_NODE, "--set", "jobs.capacity_seconds=10")
    completed = world.controller("run-pipeline", FEW, *options)
    assert completed.returncode == 1
    assert "no node had room within" in completed.stderr
    assert world.job("gone", "embed") is None
    assert not [pod for pod in world.pods("embed") if pod["metadata"]["labels"]["imgsearch.dev/run"] == "gone"]


def test_a_context_is_a_pool_that_is_there(world: World) -> None:
    context = subprocess.run(
        ["kubectl", "config", "current-context"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert world.controller("pools", "--pool", context).returncode == 0
    unknown = world.controller("pools", "--pool", "nowhere")
    assert unknown.returncode == 2
    assert "has no context nowhere" in unknown.stderr
