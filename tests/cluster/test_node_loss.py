"""What a killed GPU node costs: at most a part of each pod that ran there, and nobody's attention."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.conftest import COPIES, need_photos
from tests.cluster.inspector import Inspector
from tests.cluster.times import Stopwatch, Times
from tests.cluster.world import RELEASE, World, command, pause, stored_ids, wait_until

SOURCE = "/sources/photos/many"
SHARD, PART = 640, 40
FAILURES = "batch.kubernetes.io/job-index-failure-count"
"""Annotation of a pod: how much of its index's retry budget is used up."""

pytestmark = pytest.mark.gpu_node


@dataclass(frozen=True)
class Outcome:
    """A run as it ended."""

    ids: list[str]
    report: dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(world: World, photos: int) -> Outcome:
    need_photos(photos, at_least=2 * SHARD // COPIES)  # two shards, half done at the same time
    with controller_of(world, "calm") as process:
        outcome = outcome_of(world, process, "calm")
    assert len(outcome.ids) == outcome.report["images"]
    return outcome


@pytest.mark.parametrize(("away_seconds", "retries_used"), [(120, 0), (5, 1)])
def test_a_killed_node_costs_at_most_a_part_of_each_pod(
    world: World,
    inspector: Inspector,
    gpu_node: str,
    undisturbed: Outcome,
    times: Times,
    away_seconds: int,
    retries_used: int,
) -> None:
    run = f"away-{away_seconds}"
    with controller_of(world, run) as process:
        wait_until(lambda: len(inspector.half_done(run)) == 2, "two shards half done", seconds=300)
        command("IMGSEARCH_TEST_KILL", gpu_node)
        watch = Stopwatch()
        pod_names = {pod["metadata"]["name"] for pod in world.pods_of(run)}
        part_times = inspector.parts(run)
        pause(away_seconds)
        command("IMGSEARCH_TEST_START", gpu_node)
        wait_until(lambda: embeds_anew(world, run, pod_names), "a pod that embeds anew", seconds=400)
        times.note(f"a killed node that was away for {away_seconds} s", "s", watch.seconds)
        outcome = outcome_of(world, process, run)
    assert outcome.ids == undisturbed.ids
    assert (outcome.report["images"], outcome.report["bad"]) == (
        undisturbed.report["images"],
        undisturbed.report["bad"],
    )
    # Whole parts were not written again, so a pod has lost at most the one it had in hand.
    assert {name: time for name, time in inspector.parts(run).items() if name in part_times} == part_times
    # Away for long, the pods carry DisruptionTarget and cost no retry; back at once, they have simply failed.
    retries = max(int(pod["metadata"]["annotations"].get(FAILURES, 0)) for pod in world.pods_of(run))
    assert retries == retries_used


@pytest.fixture
def hasty(world: World, values: dict[str, Any], gpu_node: str) -> Iterator[None]:
    """The release, whose pods are deleted 5 s after their node stops to answer. The node is well at the end."""
    tolerations = [
        {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
        for state in ("not-ready", "unreachable")
    ]
    embed = {**values["embed"], "tolerations": tolerations, "terminationGracePeriodSeconds": 5}
    world.install({**values, "embed": embed})
    yield
    nodes = {node["metadata"]["name"]: node for node in world.get("nodes")["items"]}
    if gpu_node in nodes and not is_ready(nodes[gpu_node]):
        command("IMGSEARCH_TEST_KILL", gpu_node)
        del nodes[gpu_node]
    if gpu_node not in nodes:
        command("IMGSEARCH_TEST_START", gpu_node)
    world.install(values)


def is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


def test_a_node_that_is_gone_while_its_object_stays_is_named_and_its_pods_are_freed_by_the_command(
    world: World, inspector: Inspector, gpu_node: str, undisturbed: Outcome, hasty: None
) -> None:
    run = "frozen"
    with controller_of(world, run) as process:
        wait_until(lambda: len(inspector.half_done(run)) == 2, "two shards half done", seconds=300)
        recorded = wait_until(lambda: progress_of(world, run), "the controller records the progress")
        command("IMGSEARCH_TEST_FREEZE", gpu_node)
        written = inspector.parts(run)
        text = wait_until(lambda: world.status_with("2 pods cannot end", run), "status names the node", seconds=300)
        assert f"embed: node {gpu_node} does not answer (since 20" in text
        assert f"`kubectl delete node {gpu_node}`" in text
        events = wait_until(lambda: world.get("events", "--field-selector", "reason=NodeLost")["items"], "an Event")
        assert [event["involvedObject"]["name"] for event in events] == [f"{RELEASE}-{run}-embed"]
        command("IMGSEARCH_TEST_KILL", gpu_node)  # which also deletes the Node object
        wait_until(lambda: all_pending(world, run), "new pods, which wait for a node", seconds=120)
        wait_until(lambda: world.embedding(run)["gpu_hours"], "the controller records the hours of the pods")
        assert world.embedding(run)["images"] >= recorded
        command("IMGSEARCH_TEST_START", gpu_node)
        outcome = outcome_of(world, process, run)
    assert outcome.ids == undisturbed.ids
    assert {name: time for name, time in inspector.parts(run).items() if name in written} == written


def progress_of(world: World, run: str) -> int:
    """The images in the annotation of the Job."""
    job = world.job(run, "embed")
    assert job is not None
    images: int = json.loads(job["metadata"]["annotations"].get("imgsearch.dev/progress", "{}")).get("images", 0)
    return images


def all_pending(world: World, run: str) -> bool:
    pods = world.pods_of(run)
    return len(pods) == 2 and all(pod["status"]["phase"] == "Pending" for pod in pods)


@contextmanager
def controller_of(world: World, run: str) -> Iterator[subprocess.Popen[str]]:
    options = ["--run", run, "--shard-size", str(SHARD), "--index", "many", "--set", f"run.part_images={PART}"]
    with world.controlling("run-pipeline", SOURCE, *options) as process:
        yield process


def outcome_of(world: World, process: subprocess.Popen[str], run: str) -> Outcome:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return Outcome(stored_ids(world, "many", run), world.ask("report", run))


def embeds_anew(world: World, run: str, pod_names: set[str]) -> bool:
    return any(
        pod["status"].get("phase") == "Running" and pod["metadata"]["name"] not in pod_names
        for pod in world.pods_of(run)
    )
