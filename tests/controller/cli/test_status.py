"""`controller status` on a cluster."""

from __future__ import annotations

import json

from controller.jobs.state import Stage
from imgsearch import labels
from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import DONE, Cli, job, start_controller
from tests.controller.objects import RELEASE, condition, pod


def test_status_says_what_pods_wait_for_and_what_it_has_cost(cli: Cli, server: ApiServer) -> None:
    manifest = job(server, Stage.PLAN, **DONE)
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    server.put("jobs", manifest)
    server.put("pods", pod(0, "Succeeded", uid=manifest["metadata"]["uid"], message={"shards": 2, "images": 20}))
    manifest = job(server, Stage.EMBED, active=1)
    reason = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu [sic]."
    unscheduled = condition("PodScheduled", "False", message=reason)
    server.put("pods", pod(0, "Pending", uid=manifest["metadata"]["uid"], name="p", conditions=[unscheduled]))
    searcher = pod(name="team-searcher-1", phase="Pending", waiting={"reason": "ErrImagePull"})
    searcher["metadata"]["labels"] = {labels.INSTANCE: RELEASE}
    server.put("pods", searcher)
    completed = cli("status")
    assert completed.returncode == 0
    assert f"embed: 1 pod waits: {reason}" in completed.stdout
    assert "2.00" in completed.stdout
    assert "warning: pod team-searcher-1 is not ready: ErrImagePull" in completed.stderr
    document = json.loads(cli("status", "r1", "-o", "json").stdout)
    assert document["stages"][1]["waiting"] == {reason: 1}
    assert document["stages"][0]["cost"] == 2.0


def test_watching_goes_on_between_two_stages_until_the_run_is_over(env: dict[str, str], server: ApiServer) -> None:
    job(server, Stage.PLAN)
    process = start_controller(env, "status", "r1", "--watch", "-o", "json")
    assert process.stdout
    documents = [json.loads(process.stdout.readline())]
    manifest = job(server, Stage.PLAN, **DONE)
    server.put("pods", pod(0, "Succeeded", uid=manifest["metadata"]["uid"], message={"shards": 1, "images": 20}))
    while documents[-1]["stages"][0]["state"] != "complete":
        documents.append(json.loads(process.stdout.readline()))
    job(server, Stage.EMBED, conditions=[condition("Suspended")])
    while len(documents[-1]["stages"]) == 1:
        documents.append(json.loads(process.stdout.readline()))
    job(server, Stage.EMBED, conditions=[condition("Failed", message="too late")])
    lines = process.communicate(timeout=60)[0].splitlines()
    assert json.loads(lines[-1])["stages"][1]["reason"] == "too late"
    assert process.returncode == 0


def test_messages_of_pods_and_jobs_are_printed_without_their_control_characters(cli: Cli, server: ApiServer) -> None:
    hostile, escaped = "\x1b[2J\x9b\u202e\nerror: forged", r"\u001b[2J\u009b\u202e\nerror: forged"
    manifest = job(server, Stage.PLAN, active=1)
    unscheduled = condition("PodScheduled", "False", message=f"no node {hostile}")
    server.put("pods", pod(0, "Pending", uid=manifest["metadata"]["uid"], name="p", conditions=[unscheduled]))
    job(server, Stage.EMBED, conditions=[condition("Failed", message=f"too late {hostile}")])
    searcher = pod(name="team-searcher-1", phase="Pending", waiting={"reason": "X", "message": f"pull {hostile}"})
    searcher["metadata"]["labels"] = {labels.INSTANCE: RELEASE}
    server.put("pods", searcher)
    completed = cli("status")
    assert f"plan: 1 pod waits: no node {escaped}" in completed.stdout
    assert f"embed: too late {escaped}" in completed.stdout
    assert "warning: pod team-searcher-1 is not ready: X" in completed.stderr
    output = completed.stdout + completed.stderr
    assert all(character == "\n" or character.isprintable() for character in output), ascii(output)
