"""What else can go: a shard's file, Chroma, searchers, the API server, the controller."""

from __future__ import annotations

import re

import pytest

from tests.cluster.conftest import CLIENT
from tests.cluster.inspector import Inspector
from tests.cluster.load import Load
from tests.cluster.world import RELEASE, World, command, pause, wait_until

SOURCE = "/sources/photos/few"
MANY = "/sources/photos/many"


def test_a_damaged_shard_fails_alone_and_is_mended_alone(world: World, inspector: Inspector, photos: int) -> None:
    arguments = ["run-pipeline", SOURCE, "--run", "hurt", "--index", "hurt", "--shard-size", str(-(-photos // 3))]
    detached = world.controller(*arguments, "--set", "jobs.parallelism=1", "--detach")
    assert detached.returncode == 0, detached.stderr
    wait_until(lambda: "plan.json" in inspector.files("hurt"), "the plan")
    original = inspector.overwrite("hurt/plan/00002.parquet", b"no Parquet")
    wait_until(lambda: has_ended(world, "hurt", "controller"), "the detached controller's end", seconds=400)
    failed = world.controller(*arguments)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "1 of 3 shards failed; shard 2" in failed.stderr
    status = world.controller("status", "hurt")
    assert "plan/00002.parquet is damaged" in status.stdout
    times = {name: time for name, time in inspector.files("hurt").items() if name.endswith("done.json")}
    assert len(times) == 2
    inspector.overwrite("hurt/plan/00002.parquet", original)
    repaired = world.controller(*arguments)
    assert repaired.returncode == 0, repaired.stderr
    times_after = {name: time for name, time in inspector.files("hurt").items() if name.endswith("done.json")}
    assert {name: times_after[name] for name in times} == times
    assert len(times_after) == 3


def test_chroma_may_die_while_it_is_filled_and_while_it_is_searched(world: World, indexed: str) -> None:
    with (
        world.controlling("run-pipeline", MANY, "--run", "refilled", "--index", "refilled") as process,
        Load(world, CLIENT) as load,
    ):
        wait_until(lambda: is_running(world, "refilled", "ingest"), "ingest at work", seconds=400)
        world.kubectl("delete", "pod", f"{RELEASE}-chroma-0", "--grace-period=0", "--force")
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        world.kubectl("wait", "--for=condition=Ready", f"pod/{RELEASE}-chroma-0", "--timeout=120s")
        count = len(load.responses())
        load.wait_for_more(50)
        # While Chroma was away a search could not be answered: it was refused with a reason, and tried again works.
        assert [response for response in load.responses() if response["status"] not in (200, 503)] == []
        assert all(response["status"] == 200 for response in load.responses()[count + 5 :])


def test_searchers_may_be_killed_one_by_one_under_load(world: World, indexed: str) -> None:
    world.kubectl("scale", f"deployment/{RELEASE}-searcher", "--replicas=2")
    world.kubectl("rollout", "status", f"deployment/{RELEASE}-searcher", "--timeout=180s")
    with Load(world, CLIENT, clients=2) as load:
        for pod in world.pods("searcher", phase="Running"):
            world.kubectl("delete", "pod", pod["metadata"]["name"])
            world.kubectl("rollout", "status", f"deployment/{RELEASE}-searcher", "--timeout=180s")
        load.wait_for_more()
        assert not load.failures()
    world.kubectl("scale", f"deployment/{RELEASE}-searcher", "--replicas=1")


@pytest.mark.alone
def test_the_api_server_may_stop_for_a_while(world: World, photos: int) -> None:
    arguments = ["run-pipeline", SOURCE, "--run", "paused", "--index", "paused", "--shard-size", str(-(-photos // 4))]
    with world.controlling(*arguments) as process:
        wait_until(lambda: is_running(world, "paused", "embed"), "embed at work", seconds=300)
        command("IMGSEARCH_TEST_API_STOP")
        try:
            pause(35)  # longer than a request may take
        finally:
            command("IMGSEARCH_TEST_API_CONT")
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def test_a_controller_that_is_killed_in_each_stage_goes_on_where_it_was(world: World, photos: int) -> None:
    arguments = ["run-pipeline", SOURCE, "--run", "killed", "--index", "killed", "--shard-size", str(-(-photos // 2))]
    uids = {}
    for stage in ("plan", "embed", "ingest"):
        with world.controlling(*arguments):
            job = wait_until(lambda stage=stage: world.job("killed", stage), f"the {stage} Job", seconds=300)
        uids[stage] = job["metadata"]["uid"]
    completed = world.controller(*arguments)
    assert completed.returncode == 0, completed.stderr
    for stage, uid in uids.items():
        finished = world.job("killed", stage)
        assert finished is not None
        assert finished["metadata"]["uid"] == uid  # taken up, not made anew


def test_two_controllers_on_one_run_do_no_harm(world: World, photos: int) -> None:
    arguments = ["run-pipeline", SOURCE, "--run", "twice", "--index", "twice", "--shard-size", str(-(-photos // 2))]
    with world.controlling(*arguments) as first, world.controlling(*arguments) as second:
        outputs = [process.communicate(timeout=600)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    report = world.ask("report", "twice")
    assert report["images"] + report["bad"] == photos


def test_cleanup_removes_jobs_and_on_request_the_data(world: World, inspector: Inspector, photos: int) -> None:
    world.controller("run-pipeline", SOURCE, "--run", "old", "--index", "gone")
    completed = world.controller("cleanup", "old")
    assert completed.returncode == 0, completed.stderr
    assert world.job("old", "embed") is None
    assert inspector.files("old")
    failed = world.controller("cleanup", "old", "--data")
    assert failed.returncode == 2
    assert re.search(r"serves|needed", failed.stderr)


def is_running(world: World, run: str, stage: str) -> bool:
    job = world.job(run, stage)
    return bool(job and job["status"].get("ready", 0))


def has_ended(world: World, run: str, component: str) -> bool:
    job = world.job(run, component)
    return bool(job and any(c["status"] == "True" for c in job["status"].get("conditions", [])))
