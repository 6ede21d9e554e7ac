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
from tests.cluster.machine import Machine, running
from tests.cluster.test_pools import SKY
from tests.cluster.world import World, stored
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
        with running(place, IMAGE, gpu_node, tmp_path) as made:
            yield made
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
    before = read(config)
    up = ("pools", "up", "garage", "--file", str(machine.pool(tmp_path / "machines.yaml", "garage")))
    made = desk.controller(*up)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == "pool garage is ready: --pool garage, or --context ssh-garage"
    assert "SkyPilot installs Kubernetes on " in made.stderr
    assert [context["name"] for context in read(config)["contexts"]] == ["work", "ssh-garage"]
    assert read(config)["current-context"] == "work"
    again = desk.controller(*up)
    assert (again.returncode, again.stdout, again.stderr) == (0, made.stdout, "")

    assert [row["gpus"] for row in desk.ask("pools", "--pool", "garage") if row["accelerator"] == "L4"] == [2]
    words = ("--run", "machines", "--index", "machines", "--shard-size", str(-(-photos // SHARDS)))
    done = desk.controller("run-pipeline", FEW, *words, "--pool", "garage", "--accelerator", "L4:1")
    assert done.returncode == 0, done.stderr
    job = world.job("machines", "embed")
    assert job is not None
    assert job["spec"]["completions"] == SHARDS
    assert stored(world, "machines", "machines") == stored(world, "photos", indexed)

    tunnel = urlsplit(read(config)["clusters"][-1]["cluster"]["server"])
    assert listens(tunnel.port)
    assert "k3s-server" in machine.says("ps", "-eo", "comm=")
    down = desk.controller("pools", "down", "garage", "--yes")
    assert down.returncode == 0, down.stderr
    assert down.stdout.strip() == "deleted pool garage"
    assert read(config) == before
    assert not listens(tunnel.port)
    assert "k3s-server" not in machine.says("ps", "-eo", "comm=")
    assert "/etc/rancher" not in machine.says("find", "/etc", "-maxdepth", "1")
    nowhere = desk.controller("pools", "--pool", "garage")
    assert nowhere.returncode == 2
    assert "has no context garage" in nowhere.stderr


def read(config: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(config.read_text())
    return found


def listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
