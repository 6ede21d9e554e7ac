"""Searchers come with the load and go with it, and nobody waits in vain meanwhile."""

from __future__ import annotations

from typing import Any

from tests.cluster.conftest import CLIENT
from tests.cluster.load import Load
from tests.cluster.times import Stopwatch, Times
from tests.cluster.world import RELEASE, World, wait_until


def test_load_brings_searchers_from_one_to_three_and_back(
    world: World, indexed: str, values: dict[str, Any], times: Times
) -> None:
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "cpuUtilization": 60, "scaleDownSeconds": 15}
    world.install({**values, "searcher": {**values["searcher"], "autoscaling": scaling}})
    try:
        with Load(world, CLIENT, pause=0.5) as trickle:
            with Load(world, CLIENT, clients=8, cached=False) as flood:
                watch = Stopwatch()
                wait_until(lambda: ready_replicas(world) >= 3, "three searchers", seconds=300)
                times.note("from one searcher to three", "s", watch.seconds)
                flood.wait_for_more(50)
                failures = flood.failures()
            watch = Stopwatch()
            wait_until(
                lambda: desired_replicas(world) == 1 and len(world.pods("searcher")) == 1,
                "one searcher again",
                seconds=300,
            )
            times.note("from three searchers to one", "s", watch.seconds)
            trickle.wait_for_more()
            assert not failures + trickle.failures()
    finally:
        world.install(values)


def ready_replicas(world: World) -> int:
    return int(world.get("deployment", f"{RELEASE}-searcher")["status"].get("readyReplicas", 0))


def desired_replicas(world: World) -> int:
    return int(world.get("hpa", f"{RELEASE}-searcher")["status"].get("desiredReplicas", 0))
