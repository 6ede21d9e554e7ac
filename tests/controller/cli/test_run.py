"""`controller run-pipeline` on a cluster."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
import yaml

from controller.cli.options import RunOptions, TargetOptions, read_options
from controller.main import parser
from tests.controller.apiserver import ApiServer, refusing
from tests.controller.cli.commands import DONE, FLAGS, SOURCE, Cli, gpu_node, play, started
from tests.controller.objects import RELEASE
from tests.controller.workers import Said, Stays, Workers
from tests.programs import controller


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
        (("--max-parallelism", "3"), "--max-parallelism needs --accelerator"),
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
    assert "SkyPilot is not installed" in done.stderr
    assert "make install-sky" in done.stderr


def test_detach_leaves_the_run_to_a_controller_in_the_cluster(cli: Cli, server: ApiServer) -> None:
    words = ("run-pipeline", SOURCE, "--detach", "--run", "r1", "--model", "a/b", "--set", "embed.batch_images=7")
    (dry,) = yaml.safe_load_all(cli(*words, "--dry-run").stdout)
    assert server.all("jobs") == []
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run r1 ")
    assert done.stdout.endswith(f": controller status r1 --watch {FLAGS}\n")
    (made,) = server.all("jobs")
    assert made["spec"] == dry["spec"]
    args = made["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:2] == ["run-pipeline", SOURCE]
    parsed = parser().parse_args(args)
    assert read_options(TargetOptions, parsed) == TargetOptions(release=RELEASE)
    assert read_options(RunOptions, parsed) == RunOptions(
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


def test_interrupted_it_says_how_to_come_back_and_the_jobs_go_on(env: dict[str, str], server: ApiServer) -> None:
    with Workers(server, lambda command, index: Stays() if command[-1] == "embed" else play(command, index)):
        process = started(env, "run-pipeline", SOURCE, "--run", "r1")
        server.until(lambda: len(server.added("pods")) == 4)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "continue in the cluster" in told
    assert "--detach" in told
    assert f"`controller status r1 --watch {FLAGS}`" in told
    assert len(server.all("jobs")) == 2
