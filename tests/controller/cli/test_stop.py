"""`controller stop` on a cluster, and on this machine."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from controller.backends.local import LOCAL_RELEASE, LocalBackend
from controller.jobs import manifests
from controller.jobs.state import Phase, Stage
from imgsearch.settings import RunSettings, Settings
from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import DONE, FLAGS, Cli, job
from tests.controller.objects import pod
from tests.programs import controller


def names(server: ApiServer) -> set[str]:
    return {job_object["metadata"]["name"] for job_object in server.objects("jobs")}


def test_stop_ends_the_jobs_that_are_active_and_the_controller_in_the_cluster_before_them(
    cli: Cli, server: ApiServer
) -> None:
    plan_uid = job(server, Stage.PLAN, **DONE)["metadata"]["uid"]
    server.put("pods", pod(0, "Succeeded", name="x", uid=plan_uid, message={"shards": 1, "images": 1}))
    job(server, Stage.EMBED)
    job(server, Stage.EMBED, "other")
    detached = job(server, Stage.EMBED)
    detached["metadata"]["name"] = "team-r1-controller"
    detached["metadata"]["labels"]["app.kubernetes.io/component"] = "controller"
    server.put("jobs", {key: value for key, value in detached.items() if key != "status"})
    completed = cli("stop", "r1")
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines() == [
        "stopped embed of run r1 (0 of 1 were done)",
        "run r1 is stopped: its run-pipeline command continues it. End one that still runs with Ctrl-C",
    ]
    assert names(server) == {"team-r1-plan", "team-other-embed"}
    assert server.removed_names("jobs") == ["team-r1-controller", "team-r1-embed"]


def test_a_run_that_is_over_stays_as_it_is(cli: Cli, server: ApiServer) -> None:
    for stage in Stage:
        job(server, stage, **DONE)
    completed = cli("stop", "r1")
    assert (completed.returncode, completed.stdout) == (0, "run r1 is not active\n")
    assert len(names(server)) == 3


def test_a_run_without_jobs_is_named(cli: Cli) -> None:
    completed = cli("stop", "r9")
    assert completed.returncode == 2
    assert f"run 'r9' has no Jobs: `controller runs {FLAGS}` lists the runs" in completed.stderr


def test_on_this_machine_ctrl_c_stops_a_run(tmp_path: Path) -> None:
    template = {"spec": {"containers": [{"name": "embed", "command": ["sleep", "100"]}]}}
    run = Settings(run=RunSettings(id="r1"))
    with closing(LocalBackend(tmp_path, env=os.environ)) as backend:
        backend.create(manifests.job(Stage.EMBED, run, template, release=LOCAL_RELEASE, completions=1, parallelism=1))
        completed = controller("stop", "r1", "--home", tmp_path)
        assert completed.returncode == 2
        assert "a command on this machine runs the Jobs of run r1: press Ctrl-C where it runs" in completed.stderr
        assert backend.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE
