"""`controller cleanup` on a cluster."""

from __future__ import annotations

from controller.jobs.state import Stage
from imgsearch import labels
from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import DONE, FLAGS, Cli, job
from tests.controller.objects import pod


def test_cleanup_removes_the_jobs_of_runs_that_are_over(cli: Cli, server: ApiServer) -> None:
    for stage in Stage:
        job(server, stage, "done", **DONE)
    plan_uid = job(server, Stage.PLAN, "between", **DONE)["metadata"]["uid"]
    server.put("pods", pod(0, "Succeeded", name="x", uid=plan_uid, run="between", message={"shards": 1, "images": 1}))
    job(server, Stage.EMBED, "working")
    completed = cli("cleanup")
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "deleted the Jobs of run done\n"
    runs = {job_object["metadata"]["labels"][labels.RUN] for job_object in server.objects("jobs")}
    assert runs == {"between", "working"}
    busy = cli("cleanup", "working")
    assert busy.returncode == 2
    assert f"working is active (stage embed): stop it first with `controller stop working {FLAGS}`" in busy.stderr
    assert cli("cleanup", "between").returncode == 0
