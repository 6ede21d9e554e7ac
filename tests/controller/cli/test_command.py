"""The command line as a user gives it, on a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.options import RunOptions, TargetOptions, read_options
from controller.jobs.state import Stage
from controller.main import parser
from imgsearch import labels
from tests.controller.apiserver import NAMESPACE, ApiServer, refusing
from tests.controller.backends.kubernetes.test_connection import kubeconfig
from tests.controller.objects import RELEASE, condition, pod, release
from tests.controller.workers import Said, Stays, Workers, well
from tests.programs import CONTROLLER, WIDE, controller, program_env

SOURCE = "/sources/photos"
WHERE = ("--release", RELEASE, "-n", NAMESPACE)
FLAGS = f"--release {RELEASE} --namespace {NAMESPACE}"
REPORT = {"run": "r1", "index": "photos", "images": 30, "bad": 2}
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(server: ApiServer, tmp_path: Path) -> dict[str, str]:
    for kind, objects in release(settings={"IMGSEARCH_JOBS_GPU_HOUR_PRICE": "2"}).items():
        for each in objects:
            server.put(kind, each)
    return {"KUBECONFIG": kubeconfig(tmp_path / "config", server.url)}


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    return lambda *words: controller(*words, *WHERE, env=env)


def play(command: list[str], index: int) -> Said | Stays:
    """The stages end well, and errands answer."""
    answers: dict[str, dict[str, Any]] = {
        "indexes": {"indexes": [{"index": "photos", "run": "r0", "images": 30}]},
        "runs": {"runs": [{**REPORT, "source": SOURCE, "published": "2026-01-01"}], "left_out": 4},
        "report": REPORT,
    }
    return Said(answers[command[-1]]) if command[-1] in answers else well(command, index)


def job(server: ApiServer, stage: Stage, run: str = "r1", **status: Any) -> dict[str, Any]:
    """A Job of a run, as it is after `status`."""
    names = {labels.INSTANCE: RELEASE, labels.RUN: run, labels.INDEX: "photos", labels.COMPONENT: str(stage)}
    about = {"name": f"{RELEASE}-{run}-{stage}", "labels": names, "annotations": {labels.SPEC_HASH: "x"}}
    return server.put("jobs", {"metadata": about, "spec": {"completions": 1, "parallelism": 1}, "status": status})


def started(env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CONTROLLER, *words, *WHERE],
        env=program_env({**env, **WIDE}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


DONE = {"completedIndexes": "0", "conditions": [condition("Complete")]}


def test_a_run_is_driven_to_its_end_and_the_same_command_says_that_it_is_done(cli: Cli, server: ApiServer) -> None:
    with Workers(server, play):
        done = cli("run-pipeline", SOURCE, "--run", "r1", "--parallelism", "2", "--set", "embed.batch_images=7")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "index photos: 30 images searchable\n"
        assert "embed complete, 3/3 shards" in done.stderr
        env = server.get("jobs", "team-r1-embed")["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "IMGSEARCH_EMBED_BATCH_IMAGES", "value": "7"} in env
        again = cli("run-pipeline", SOURCE, "--run", "r1", "--set", "embed.batch_images=7")
        assert again.returncode == 0
        assert "run r1 is done already, nothing was changed" in again.stdout
        assert "index photos still serves run r0" in again.stdout
        other = cli("run-pipeline", SOURCE, "--run", "r1")
        assert other.returncode == 3
        assert "run r1 exists with other options" in other.stderr


def test_what_the_ingest_said_is_taken_from_the_report_where_its_pod_went(
    env: dict[str, str], server: ApiServer
) -> None:
    def lose(command: list[str], index: int) -> Said | Stays:
        return Stays() if command[-1] == "ingest" else play(command, index)

    with Workers(server, lose):
        process = started(env, "run-pipeline", SOURCE, "--run", "r1")
        server.until(lambda: "team-r1-ingest-0-x" in server.added("pods"))
        server.remove("pods", "team-r1-ingest-0-x")
        server.put("jobs", {**server.get("jobs", "team-r1-ingest"), "status": DONE})
        said, _ = process.communicate(timeout=60)
    assert said.startswith("index photos: 30 images searchable, 2 could not be used")
    assert "still serves run r0" in said


def test_a_failed_run_says_what_to_do_next(cli: Cli, server: ApiServer) -> None:
    def broken(command: list[str], index: int) -> Said | Stays:
        return Said({"error": "x[1].parquet is damaged"}, code=4) if command[-1] == "embed" else play(command, index)

    with Workers(server, broken):
        done = cli("run-pipeline", SOURCE, "--run", "r1")
    assert done.returncode == 1
    assert "3 of 3 shards failed; shard 0: x[1].parquet is damaged" in done.stderr
    assert f"`controller status r1 {FLAGS}`" in done.stderr
    assert f"`controller logs r1 SHARD {FLAGS}`" in done.stderr


@pytest.mark.parametrize("length", [27, 20_000_000])
def test_a_list_of_bad_images_is_whole_or_refused(cli: Cli, server: ApiServer, length: int) -> None:
    def printing(command: list[str], index: int) -> Said | Stays:
        return Said({"run": "r1", "bytes": length}, printed="key,stage,reason\na,read,é\n")

    with Workers(server, printing):
        done = cli("report", "r1", "--bad")
    if length == 27:
        assert done.stdout == "key,stage,reason\na,read,é\n"
    else:
        assert done.returncode == 3
        assert done.stdout == ""
        for value in ("20,000,000 bytes", "runs/r1/bad.csv", "file:///storage"):
            assert value in done.stderr


@pytest.mark.parametrize("lost", [0, 1])
def test_an_evaluation_is_asked_for_in_the_cluster_and_comes_whole_or_not_at_all(
    cli: Cli, server: ApiServer, lost: int
) -> None:
    told = json.dumps({"indexes": [], "figures": [], "é": 1}, ensure_ascii=False)
    asked: list[str] = []

    def measure(command: list[str], index: int) -> Said:
        asked.extend(command)
        return Said({"bytes": len(told.encode()) + lost}, printed=f"a library warns\n{told}\n")

    with Workers(server, measure):
        done = cli("evaluate", "photos", "other", "--queries", "7", "-o", "json")
    assert asked == ["python", "-m", "searcher", "evaluate"]
    (made,) = [each.body for each in server.requests if each.method == "POST"]
    env = {each["name"]: each.get("value") for each in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["IMGSEARCH_RUN_INDEX"] == "photos"
    assert env["IMGSEARCH_EVALUATE_AGAINST"] == "other"
    assert env["IMGSEARCH_EVALUATE_QUERIES"] == "7"
    if lost:
        assert done.returncode == 3
        assert "incomplete" in done.stderr
    else:
        assert json.loads(done.stdout)["é"] == 1


def test_dry_run_prints_what_the_cluster_has_checked(cli: Cli, server: ApiServer) -> None:
    done = cli("run-pipeline", SOURCE, "--run", "r1", "--dry-run")
    assert done.returncode == 0, done.stderr
    jobs = list(yaml.safe_load_all(done.stdout))
    assert [each["metadata"]["name"] for each in jobs] == ["team-r1-plan", "team-r1-embed", "team-r1-ingest"]
    checked = [each.body for each in server.requests if each.query.get("dryRun") == "All"]
    assert checked == jobs
    assert server.all("jobs") == []
    server.trouble("create", "jobs", refusing(422, "nodeSelector: Invalid value", reason="Invalid"))
    refused = cli("run-pipeline", SOURCE, "--run", "r1", "--dry-run")
    assert refused.returncode == 2
    assert "nodeSelector: Invalid value" in refused.stderr


def gpu_node(name: str, gpu: str, gpus: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"cloud.google.com/gke-accelerator": gpu}},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}, "conditions": [condition("Ready")]},
    }


def made_for(cli: Cli, *words: str) -> dict[str, Any]:
    """The embed Job that a dry run prints."""
    done = cli("run-pipeline", SOURCE, "--run", "r1", "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    _, embed, _ = yaml.safe_load_all(done.stdout)
    return dict(embed)


def test_pods_go_to_the_gpus_that_were_asked_for(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    server.put("nodes", gpu_node("b", "nvidia-tesla-t4", 4))
    pod = made_for(cli, "--accelerator", "L4,T4,A10G", "--spot", "never")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    key = "cloud.google.com/gke-accelerator"
    assert term["matchExpressions"][0] == {"key": key, "operator": "In", "values": ["nvidia-l4", "nvidia-tesla-t4"]}
    assert "karpenter.sh/capacity-type" in {each["key"] for each in term["matchExpressions"]}


def test_a_gpu_that_no_node_has_is_told_at_once(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    done = cli("run-pipeline", SOURCE, "--accelerator", "H100:8")
    assert done.returncode == 2
    assert "no node has 8 H100; the cluster has L4 (2 on the largest node)" in done.stderr
    assert server.all("jobs") == []


def test_an_autoscaler_may_add_what_no_node_has(cli: Cli, server: ApiServer) -> None:
    words = ("--accelerator", "H100:8", "--set", "jobs.autoscaler=gke", "--max-parallelism", "3")
    told = cli("run-pipeline", SOURCE, "--run", "r1", "--detach", "--dry-run", *words)
    args = yaml.safe_load(told.stdout)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--accelerator") + 1] == "H100:8"
    assert args[args.index("--max-parallelism") + 1] == "3"
    assert "--parallelism" not in args
    pod = made_for(cli, *words)["spec"]["template"]["spec"]
    assert "nvidia-h100-80gb" in json.dumps(pod["affinity"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--max-parallelism", "3"), "--accelerator"),
        (("--accelerator", "L4:0"), "'L4:0'"),
        (("--max-parallelism", "3", "--parallelism", "2"), "not allowed with argument"),
        (("--accelerator", "L4", "--local"), "remove --local"),
    ],
)
def test_wishes_that_cannot_be_are_told(cli: Cli, words: tuple[str, ...], sentence: str) -> None:
    done = cli("run-pipeline", "." if "--local" in words else SOURCE, *words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_without_skypilot_its_backend_says_how_to_get_it(env: dict[str, str]) -> None:
    done = controller("run-pipeline", "s3://photos/new", "--backend", "sky", env=env)
    assert done.returncode == 2
    assert "SkyPilot is not installed here" in done.stderr
    assert "make install-sky" in done.stderr


def test_pools_lists_gpus_and_how_many_are_free(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    held = pod(name="held", gpus=1)
    server.put("pods", {**held, "spec": {**held["spec"], "nodeName": "a"}})
    done = cli("pools", "-o", "json")
    (row,) = json.loads(done.stdout)
    assert (row["accelerator"], row["nodes"], row["gpus"], row["free"]) == ("L4", 1, 2, 1)
    assert "make install-sky" in done.stderr
    server.trouble("list", "nodes", refusing(403, "nodes is forbidden"))
    refused = cli("pools")
    assert refused.returncode == 3
    assert "may not list nodes" in refused.stderr


def test_detach_leaves_the_run_to_a_controller_in_the_cluster(cli: Cli, server: ApiServer) -> None:
    words = ("run-pipeline", SOURCE, "--detach", "--run", "r1", "--model", "a/b", "--set", "embed.batch_images=7")
    (dry,) = yaml.safe_load_all(cli(*words, "--dry-run").stdout)
    assert server.all("jobs") == []
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f": controller status r1 --watch {FLAGS}\n")
    (made,) = server.all("jobs")
    assert made["spec"] == dry["spec"]
    args = made["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:2] == ["run-pipeline", SOURCE]
    given = parser().parse_args(args)
    assert read_options(TargetOptions, given) == TargetOptions(release=RELEASE)
    assert read_options(RunOptions, given) == RunOptions(
        source=SOURCE,
        model="a/b",
        run="r1",
        shard_size=10_000,
        parallelism=1,
        overrides=("embed.batch_images=7",),
    )


def test_detach_runs_as_many_shards_as_were_asked_for(cli: Cli, server: ApiServer) -> None:
    """The release's own number is for those who ask for none."""
    words = ("run-pipeline", SOURCE, "--detach", "--dry-run", "--set", "jobs.parallelism=8")
    for asked, parallelism in (((), "8"), (("--parallelism", "3"), "3")):
        (job,) = yaml.safe_load_all(cli(*words, *asked).stdout)
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args[args.index("--parallelism") + 1] == parallelism


def test_status_says_what_pods_wait_for_and_what_it_has_cost(cli: Cli, server: ApiServer) -> None:
    made = job(server, Stage.PLAN, **DONE)
    server.put("pods", pod(0, "Succeeded", uid=made["metadata"]["uid"], message={"shards": 2, "images": 20}, gpus=1))
    made = job(server, Stage.EMBED, active=1)
    reason = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu [sic]."
    unscheduled = condition("PodScheduled", "False", message=reason)
    server.put("pods", pod(0, "Pending", uid=made["metadata"]["uid"], name="p", conditions=[unscheduled]))
    searcher = pod(name="team-searcher-1", phase="Pending", waiting={"reason": "ErrImagePull"})
    searcher["metadata"]["labels"] = {labels.INSTANCE: RELEASE}
    server.put("pods", searcher)
    done = cli("status")
    assert done.returncode == 0
    assert f"embed: 1 pod waits: {reason}" in done.stdout
    assert "2.00" in done.stdout
    assert "warning: pod team-searcher-1 is not ready: ErrImagePull" in done.stderr
    told = json.loads(cli("status", "r1", "-o", "json").stdout)
    assert told["stages"][1]["waiting"] == {reason: 1}
    assert told["stages"][0]["cost"] == 2.0


def test_watching_goes_on_between_two_stages_until_the_run_is_over(env: dict[str, str], server: ApiServer) -> None:
    job(server, Stage.PLAN)
    process = started(env, "status", "r1", "--watch", "-o", "json")
    assert process.stdout
    seen = [json.loads(process.stdout.readline())]
    made = job(server, Stage.PLAN, **DONE)
    server.put("pods", pod(0, "Succeeded", uid=made["metadata"]["uid"], message={"shards": 1, "images": 20}))
    while seen[-1]["stages"][0]["state"] != "complete":
        seen.append(json.loads(process.stdout.readline()))
    job(server, Stage.EMBED, conditions=[condition("Suspended")])
    while len(seen[-1]["stages"]) == 1:
        seen.append(json.loads(process.stdout.readline()))
    job(server, Stage.EMBED, conditions=[condition("Failed", message="too late")])
    rest = process.communicate(timeout=60)[0].splitlines()
    assert json.loads(rest[-1])["stages"][1]["reason"] == "too late"
    assert process.returncode == 0


def test_interrupted_it_says_how_to_come_back_and_the_jobs_go_on(env: dict[str, str], server: ApiServer) -> None:
    with Workers(server, lambda command, index: Stays() if command[-1] == "embed" else play(command, index)):
        process = started(env, "run-pipeline", SOURCE, "--run", "r1")
        server.until(lambda: len(server.added("pods")) == 4)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"`controller status r1 --watch {FLAGS}`" in told
    assert len(server.all("jobs")) == 2


def test_cleanup_removes_the_jobs_of_runs_that_are_over(cli: Cli, server: ApiServer) -> None:
    for stage in Stage:
        job(server, stage, "done", **DONE)
    planned = job(server, Stage.PLAN, "between", **DONE)["metadata"]["uid"]
    server.put("pods", pod(0, "Succeeded", name="x", uid=planned, run="between", message={"shards": 1}))
    job(server, Stage.EMBED, "working")
    done = cli("cleanup")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "deleted the Jobs of run done\n"
    left = {each["metadata"]["labels"][labels.RUN] for each in server.all("jobs")}
    assert left == {"between", "working"}
    busy = cli("cleanup", "working")
    assert busy.returncode == 2
    assert "working is at work (embed)" in busy.stderr
    assert cli("cleanup", "between").returncode == 0


def test_the_log_of_a_shard_is_printed(cli: Cli, server: ApiServer) -> None:
    server.put("pods", pod(1, name="p"))
    server.logs["p"] = '{"message": "embedded [7]"}\n'
    assert cli("logs", "r1", "1").stdout == '{"message": "embedded [7]"}\n'


def test_what_the_store_knows_is_asked_in_the_cluster(cli: Cli, server: ApiServer) -> None:
    with Workers(server, play):
        assert "r0" in cli("indexes").stdout
        runs = cli("runs", "-o", "json")
        assert json.loads(runs.stdout)[0]["state"] == "done"
        assert "warning: 4 earlier runs" in runs.stderr
        assert json.loads(cli("report", "-o", "json").stdout) == {**REPORT, "cost": None}
    with Workers(server, lambda command, index: Said({"error": "no index is called 'x'"}, code=2)):
        refused = cli("rollback", "x")
    assert refused.returncode == 2
    assert refused.stderr == "error: no index is called 'x'\n"
    assert server.all("jobs") == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run-pipeline", "photos"), "'photos' is a path on this machine"),
        (("run-pipeline", SOURCE, "--release", "other"), "'other'"),
        (("serve",), "add --local"),
        (("runs", "--backend", "sky"), "--namespace"),
        (("status",), f"`controller run-pipeline SOURCE {FLAGS}`"),
        (("status", "r9"), "'r9'"),
        (("logs", "r9", "0"), "r9"),
    ],
)
def test_mistakes_get_one_sentence(env: dict[str, str], words: tuple[str, ...], sentence: str) -> None:
    done = controller(words[0], *WHERE, *words[1:], env=env)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
