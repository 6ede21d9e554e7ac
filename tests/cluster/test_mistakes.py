"""What a person gets wrong at first, and what the command line then says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.world import World, wait_until

SOURCE = "/sources/photos/few"


@pytest.fixture
def second(world: World, values: dict[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], World]]:
    """Installs a second release, without waiting for it."""
    second_world = World(world.namespace, "second")

    def install(changes: Mapping[str, Any]) -> World:
        completed = second_world.chart("upgrade", {**values, **changes}, "--install")
        assert completed.returncode == 0, completed.stderr
        return second_world

    yield install
    second_world.helm("uninstall", second_world.release, "--wait")
    second_world.kubectl("delete", "pvc", "--selector", f"app.kubernetes.io/instance={second_world.release}")


def test_a_forgotten_secret_is_named(second: Callable[[Mapping[str, Any]], World]) -> None:
    world = second({"storage": {"uri": "s3://nowhere/index", "existingSecret": "forgotten"}})
    wait_until(lambda: world.status_with('secret "forgotten" not found'), "status names the Secret")


def test_a_wrong_storage_class_is_told(second: Callable[[Mapping[str, Any]], World]) -> None:
    world = second({"chroma": {"claim": {"storageClass": "no-such-class"}}})
    wait_until(lambda: world.status_with("unbound immediate PersistentVolumeClaims"), "status tells of the claim")


def test_a_quota_that_refuses_the_pods_is_told(world: World, values: dict[str, Any]) -> None:
    full = World(f"{world.namespace}-full")
    full.kubectl("create", "namespace", full.namespace)
    try:
        full.kubectl("create", "quota", "none", "--hard=pods=0")
        completed = full.chart("install", {**values, "sources": []})
        assert completed.returncode == 0, completed.stderr
        for owner in ("StatefulSet imgsearch-chroma", "ReplicaSet imgsearch-searcher-"):
            wait_until(lambda owner=owner: full.status_with(owner), f"status names the {owner}")
        assert full.status_with("cannot create a pod: ")
        assert full.status_with("exceeded quota: none")
    finally:
        full.kubectl("delete", "namespace", full.namespace, "--wait=false")


def test_a_gpu_that_no_node_has_is_told_and_the_run_mended_and_stopped(world: World, values: dict[str, Any]) -> None:
    # Enough photos that the embedding is not over before it is stopped.
    command = ("run-pipeline", "/sources/photos/many", "--run", "no-gpu")
    world.install({**values, "embed": {**values["embed"], "gpu": {"count": 1, "accelerators": ["nvidia-h900"]}}})
    try:
        with world.controlling(*command):
            wait_until(lambda: world.status_with("node affinity", "no-gpu"), "status says why the pods wait")
        completed = world.controller("cleanup", "no-gpu")
        assert completed.returncode == 2
        assert "is active (stage embed): stop it first with `controller stop no-gpu " in completed.stderr
    finally:
        world.install(values)
    # The same command, now that the release is right: the Job that no pod has started is made anew.
    with world.controlling(*command) as process:
        wait_until(lambda: has_started(world, "no-gpu"), "a pod starts", seconds=300)
        process.kill()
        assert "no pod of Job imgsearch-no-gpu-embed has started" in process.communicate()[0]
    stopped = world.controller("stop", "no-gpu")
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped embed of run no-gpu" in stopped.stdout
    assert world.job("no-gpu", "embed") is None
    assert world.job("no-gpu", "plan") is not None
    assert world.controller("cleanup", "no-gpu").returncode == 0


def has_started(world: World, run: str) -> bool:
    """Whether a pod of the embedding has."""
    job = world.job(run, "embed") or {"status": {}}
    return bool(job["status"].get("ready", 0) or job["status"].get("succeeded", 0))


def test_a_run_may_begin_before_chroma_is_ready(world: World) -> None:
    chroma = f"statefulset/{world.release}-chroma"
    world.kubectl("scale", chroma, "--replicas=0")
    with world.controlling("run-pipeline", SOURCE, "--run", "early", "--index", "early") as process:
        wait_until(
            lambda: (world.job("early", "ingest") or {"status": {}})["status"].get("active"), "ingest", seconds=300
        )
        assert world.status_with(f"pod {world.release}-searcher")  # which waits for Chroma as well
        world.kubectl("scale", chroma, "--replicas=1")
        output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def test_a_name_that_is_taken_and_a_release_that_is_not_there(world: World, values: dict[str, Any]) -> None:
    completed = world.chart("install", values)
    assert "cannot re-use a name that is still in use" in completed.stderr
    status = World("default").controller("status")
    assert status.returncode == 2
    assert "helm install imgsearch" in status.stderr
