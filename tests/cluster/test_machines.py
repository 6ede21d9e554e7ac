"""A pool of bare machines: `pools up` makes a context on which a run ends, and `pools down` takes it away again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cluster.conftest import FEW, REGISTRY
from tests.cluster.machine import Machine, running_machine
from tests.cluster.test_pools import SKY
from tests.cluster.world import World, stored_ids
from tests.skypilot.cluster import kubeconfig

IMAGE = f"{REGISTRY}/imgsearch-sky:0.1.0"
"""It has an ssh server."""
SHARDS = 2

pytestmark = pytest.mark.gpu_node


@pytest.fixture
def machine(world: World, gpu_node: str, tmp_path: Path) -> Iterator[Machine]:
    """On the one node that has its image."""
    place = World(f"{world.namespace}-machines")
    place.kubectl("create", "namespace", place.namespace)
    try:
        with running_machine(place, IMAGE, gpu_node, tmp_path) as new_machine:
            yield new_machine
    finally:
        place.kubectl("delete", "namespace", place.namespace, "--wait=false", check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A kubeconfig that leads to no cluster, so that whoever reaches one has come through the machine."""
    return kubeconfig(tmp_path / "config", {"work": "https://127.0.0.1:1"}, current="work")


@pytest.fixture
def desk(world: World, machine: Machine, config: Path, tmp_path: Path) -> World:
    """The release as somebody has it at their desk, with that kubeconfig and a HOME of their own."""
    env = {"HOME": str(tmp_path), "KUBECONFIG": str(config), "PATH": machine.path}
    return World(world.namespace, world.release, program=SKY, env=env)


def test_a_pool_of_machines_is_made_runs_a_pipeline_and_is_taken_down(
    world: World, desk: World, machine: Machine, config: Path, indexed: str, photos: int, tmp_path: Path
) -> None:
    kubeconfig = read_kubeconfig(config)
    command = ("pools", "up", "garage", "--file", str(machine.pool(tmp_path / "machines.yaml", "garage")))
    first = desk.controller(*command)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == "pool garage is ready: --pool garage, or --context ssh-garage"
    assert "SkyPilot installs Kubernetes on " in first.stderr
    assert [context["name"] for context in read_kubeconfig(config)["contexts"]] == ["work", "ssh-garage"]
    assert read_kubeconfig(config)["current-context"] == "work"
    second = desk.controller(*command)
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")

    assert [row["gpus"] for row in desk.ask("pools", "--pool", "garage") if row["accelerator"] == "L4"] == [2]
    options = ("--run", "machines", "--index", "machines", "--shard-size", str(-(-photos // SHARDS)))
    completed = desk.controller("run-pipeline", FEW, *options, "--pool", "garage", "--accelerator", "L4:1")
    assert completed.returncode == 0, completed.stderr
    job = world.job("machines", "embed")
    assert job is not None
    assert job["spec"]["completions"] == SHARDS
    assert stored_ids(world, "machines", "machines") == stored_ids(world, "photos", indexed)

    tunnel = urlsplit(read_kubeconfig(config)["clusters"][-1]["cluster"]["server"])
    assert listens(tunnel.port)
    assert "k3s-server" in machine.says("ps", "-eo", "comm=")
    removed = desk.controller("pools", "down", "garage", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert removed.stdout.strip() == "deleted pool garage"
    assert read_kubeconfig(config) == kubeconfig
    assert not listens(tunnel.port)
    assert "k3s-server" not in machine.says("ps", "-eo", "comm=")
    assert "/etc/rancher" not in machine.says("find", "/etc", "-maxdepth", "1")
    failed = desk.controller("pools", "--pool", "garage")
    assert failed.returncode == 2
    assert "has no context garage" in failed.stderr


def read_kubeconfig(config: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(config.read_text())
    return document


def listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
