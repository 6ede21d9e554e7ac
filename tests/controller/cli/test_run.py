"""`controller run-pipeline` on a cluster."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
import yaml

from controller.cli.options import RunOptions, TargetOptions, read_options
from controller.main import parser
from tests.controller.apifaults import refusal
from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import DONE, FLAGS, SOURCE, Cli, answer_queries, gpu_node, start_controller
from tests.controller.objects import RELEASE
from tests.controller.workers import Ended, PodBehaviour, Unfinished, Workers, succeed
from tests.programs import controller


def test_a_run_is_driven_to_its_end_and_the_same_command_says_that_it_is_done(cli: Cli, server: ApiServer) -> None:
    with Workers(server, answer_queries):
        first = cli("run-pipeline", SOURCE, "--run", "r1", "--parallelism", "2", "--set", "embed.batch_images=7")
        assert first.returncode == 0, first.stderr
        assert first.stdout == "index photos: 30 images searchable\n"
        assert "embed complete, 3/3 shards" in first.stderr
        env = server.get("jobs", "team-r1-embed")["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "IMGSEARCH_EMBED_BATCH_IMAGES", "value": "7"} in env
        second = cli("run-pipeline", SOURCE, "--run", "r1", "--set", "embed.batch_images=7")
        assert second.returncode == 0
        assert "run r1 is done already, nothing was changed" in second.stdout
        assert "index photos still serves run r0" in second.stdout
        with_other_options = cli("run-pipeline", SOURCE, "--run", "r1")
        assert with_other_options.returncode == 3
        assert "run r1 exists with other options" in with_other_options.stderr


def test_what_the_ingest_said_is_taken_from_the_report_where_its_pod_went(
    env: dict[str, str], server: ApiServer
) -> None:
    def lose_ingest_pod(command: list[str], index: int) -> Ended | Unfinished:
        return Unfinished() if command[-1] == "ingest" else answer_queries(command, index)

    with Workers(server, lose_ingest_pod):
        process = start_controller(env, "run-pipeline", SOURCE, "--run", "r1")
        server.wait_until(lambda: "team-r1-ingest-0-x" in server.added_names("pods"))
        server.remove("pods", "team-r1-ingest-0-x")
        server.put("jobs", {**server.get("jobs", "team-r1-ingest"), "status": DONE})
        output, _ = process.communicate(timeout=60)
    assert output.startswith("index photos: 30 images searchable, 2 could not be used")
    assert "still serves run r0" in output


def test_vectors_that_do_not_fit_into_the_store_are_told_before_they_are_embedded(cli: Cli, server: ApiServer) -> None:
    def plan(command: list[str], index: int) -> Ended | Unfinished:
        if command[-1] != "plan":
            return answer_queries(command, index)
        return Ended({"shards": 3, "images": 30, "kept": 2, "removed": 0, "dim": 512})

    with Workers(server, plan):
        completed = cli("run-pipeline", SOURCE, "--run", "r1", "--set", "jobs.store_memory=10k")
    assert completed.returncode == 0, completed.stderr
    sentence = "32 vectors of 512 dimensions take about 0.0 GB of memory in the vector store"
    assert completed.stderr.count(f"warning: {sentence}") == 1
    assert completed.stderr.index("warning: ") < completed.stderr.index("embed ")
    (event,) = [event for event in server.objects("events") if event["reason"] == "StoreTooSmall"]
    assert event["message"].startswith(sentence)
    assert event["involvedObject"]["name"] == "team-r1-plan"


def test_a_failed_run_says_what_to_do_next(cli: Cli, server: ApiServer) -> None:
    def fail_embedding(command: list[str], index: int) -> Ended | Unfinished:
        return (
            Ended({"error": "x[1].parquet is damaged"}, code=4)
            if command[-1] == "embed"
            else answer_queries(command, index)
        )

    with Workers(server, fail_embedding):
        completed = cli("run-pipeline", SOURCE, "--run", "r1")
    assert completed.returncode == 1
    assert "3 of 3 shards failed; shard 0: x[1].parquet is damaged" in completed.stderr
    assert f"`controller status r1 {FLAGS}`" in completed.stderr
    assert f"`controller logs r1 SHARD {FLAGS}`" in completed.stderr


def test_dry_run_prints_what_the_cluster_has_checked(cli: Cli, server: ApiServer) -> None:
    completed = cli("run-pipeline", SOURCE, "--run", "r1", "--dry-run")
    assert completed.returncode == 0, completed.stderr
    jobs = list(yaml.safe_load_all(completed.stdout))
    assert [job["metadata"]["name"] for job in jobs] == ["team-r1-plan", "team-r1-embed", "team-r1-ingest"]
    checked = [job.body for job in server.requests if job.query.get("dryRun") == "All"]
    assert checked == jobs
    assert server.objects("jobs") == []
    server.inject("create", "jobs", refusal(422, "nodeSelector: Invalid value", reason="Invalid"))
    failed = cli("run-pipeline", SOURCE, "--run", "r1", "--dry-run")
    assert failed.returncode == 2
    assert "nodeSelector: Invalid value" in failed.stderr


def manifest_with(cli: Cli, *arguments: str) -> dict[str, Any]:
    """The embed Job that a dry run prints."""
    completed = cli("run-pipeline", SOURCE, "--run", "r1", "--dry-run", *arguments)
    assert completed.returncode == 0, completed.stderr
    _, embed, _ = yaml.safe_load_all(completed.stdout)
    return dict(embed)


def test_pods_go_to_the_gpus_that_were_asked_for(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    server.put("nodes", gpu_node("b", "nvidia-tesla-t4", 4))
    pod = manifest_with(cli, "--accelerator", "L4,T4,A10G", "--spot", "never")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    key = "cloud.google.com/gke-accelerator"
    assert term["matchExpressions"][0] == {"key": key, "operator": "In", "values": ["nvidia-l4", "nvidia-tesla-t4"]}
    assert "karpenter.sh/capacity-type" in {expression["key"] for expression in term["matchExpressions"]}


def test_a_gpu_that_no_node_has_is_told_at_once(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    completed = cli("run-pipeline", SOURCE, "--accelerator", "H100:1")
    assert completed.returncode == 2
    assert "no node has H100; the cluster has L4: choose one of these" in completed.stderr
    assert server.objects("jobs") == []


def test_an_autoscaler_may_add_what_no_node_has(cli: Cli, server: ApiServer) -> None:
    arguments = ("--accelerator", "H100:1", "--set", "jobs.autoscaler=gke", "--max-parallelism", "3")
    completed = cli("run-pipeline", SOURCE, "--run", "r1", "--detach", "--dry-run", *arguments)
    args = yaml.safe_load(completed.stdout)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--accelerator") + 1] == "H100"
    assert args[args.index("--max-parallelism") + 1] == "3"
    assert "--parallelism" not in args
    pod = manifest_with(cli, *arguments)["spec"]["template"]["spec"]
    assert "nvidia-h100-80gb" in json.dumps(pod["affinity"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--max-parallelism", "3"), "--max-parallelism needs --accelerator"),
        (("--accelerator", "L4:0"), "'L4:0'"),
        (("--accelerator", "H100:8"), "a pod uses one GPU; use H100, and run more pods at a time with --parallelism"),
        (("--max-parallelism", "3", "--parallelism", "2"), "not allowed with argument"),
        (("--accelerator", "L4", "--local"), "remove --local"),
        (
            ("--accelerator", "L4", "--max-parallelism", "3", "--set", "jobs.queue=gpus"),
            "--max-parallelism cannot be used with the queue gpus: Kueue stops all pods of a Job",
        ),
        (
            ("--detach", "--accelerator", "L4", "--max-parallelism", "3", "--set", "jobs.queue=gpus"),
            "--max-parallelism cannot be used with the queue gpus",
        ),
    ],
)
def test_wishes_that_cannot_be_are_told(cli: Cli, server: ApiServer, arguments: tuple[str, ...], sentence: str) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    completed = cli("run-pipeline", "." if "--local" in arguments else SOURCE, *arguments)
    assert completed.returncode == 2
    assert sentence in completed.stderr
    assert server.objects("jobs") == []


def test_without_skypilot_its_backend_says_how_to_get_it(env: dict[str, str]) -> None:
    completed = controller("run-pipeline", "s3://photos/new", "--backend", "sky", env=env)
    assert completed.returncode == 2
    assert "SkyPilot is not installed" in completed.stderr
    assert "make install-sky" in completed.stderr


def test_detach_leaves_the_run_to_a_controller_in_the_cluster(cli: Cli, server: ApiServer) -> None:
    arguments = ("run-pipeline", SOURCE, "--detach", "--run", "r1", "--model", "a/b", "--set", "embed.batch_images=7")
    (dry,) = yaml.safe_load_all(cli(*arguments, "--dry-run").stdout)
    assert server.objects("jobs") == []
    completed = cli(*arguments)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith("run r1 ")
    assert completed.stdout.endswith(f": controller status r1 --watch {FLAGS}\n")
    (manifest,) = server.objects("jobs")
    assert manifest["spec"] == dry["spec"]
    args = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
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
    arguments = ("run-pipeline", SOURCE, "--detach", "--dry-run", "--set", "jobs.parallelism=8")
    for option, parallelism in (((), "8"), (("--parallelism", "3"), "3")):
        (job,) = yaml.safe_load_all(cli(*arguments, *option).stdout)
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args[args.index("--parallelism") + 1] == parallelism


def test_interrupted_it_says_how_to_come_back_and_the_jobs_go_on(env: dict[str, str], server: ApiServer) -> None:
    with Workers(
        server, lambda command, index: Unfinished() if command[-1] == "embed" else answer_queries(command, index)
    ):
        process = start_controller(env, "run-pipeline", SOURCE, "--run", "r1")
        server.wait_until(lambda: len(server.added_names("pods")) == 4)
        process.send_signal(signal.SIGINT)
        messages = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "continue in the cluster" in messages
    assert "--detach" in messages
    assert f"`controller status r1 --watch {FLAGS}`" in messages
    assert len(server.objects("jobs")) == 2


def with_image(server: ApiServer, component: str, image: str) -> None:
    """As `helm upgrade` leaves the PodTemplate of a component."""
    template = server.get("podtemplates", f"team-{component}")
    template["template"]["spec"]["containers"][0]["image"] = image
    server.put("podtemplates", template)


def image_of(server: ApiServer) -> str:
    return str(server.get("jobs", "team-r1-embed")["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_job_of_which_no_pod_has_started_gets_the_image_of_the_upgraded_release(
    env: dict[str, str], cli: Cli, server: ApiServer, phase: str
) -> None:
    """A wrong tag would otherwise wait for ever."""

    def wait(command: list[str], index: int) -> Ended | Unfinished:
        return Unfinished(phase) if command[-1] == "embed" and image_of(server) == "wrong" else succeed(command, index)

    with_image(server, "embed", "wrong")
    with Workers(server, wait):
        first = start_controller(env, "run-pipeline", SOURCE, "--run", "r1")
        server.wait_until(lambda: "team-r1-embed-2-x" in server.added_names("pods"))
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
        uid = server.get("jobs", "team-r1-embed")["metadata"]["uid"]
        with_image(server, "embed", "right")
        second = start_controller(env, "run-pipeline", SOURCE, "--run", "r1")
        if phase == "Pending":
            output, messages = second.communicate(timeout=60)
            assert second.returncode == 0, messages
            assert output.startswith("index photos: 30 images searchable")
            assert messages.count("warning: no pod of Job team-r1-embed has started") == 1
            assert image_of(server) == "right"
        else:
            assert second.stderr is not None
            shown = next(line for line in second.stderr if "embed" in line)
            second.send_signal(signal.SIGINT)
            _, messages = second.communicate(timeout=60)
            assert "made anew" not in shown + messages
            assert server.get("jobs", "team-r1-embed")["metadata"]["uid"] == uid


@pytest.mark.parametrize(("phase", "image"), [("Pending", "right"), ("Running", "wrong")])
def test_a_controller_in_the_cluster_that_has_not_started_is_replaced(
    cli: Cli, server: ApiServer, phase: str, image: str
) -> None:
    with_image(server, "controller", "wrong")
    with Workers(server, lambda command, index: Unfinished(phase)):
        assert cli("run-pipeline", SOURCE, "--run", "r1", "--detach").returncode == 0
        server.wait_until(lambda: "team-r1-controller-0-x" in server.added_names("pods"))
        with_image(server, "controller", "right")
        completed = cli("run-pipeline", SOURCE, "--run", "r1", "--detach")
    assert completed.returncode == 0, completed.stderr
    (job,) = server.objects("jobs")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == image


class TestUpdate:
    """`--update` with `--run`: the base is that of the first command."""

    ARGUMENTS = ("run-pipeline", SOURCE, "--update", "--run", "r1")

    @staticmethod
    def serving(run: str, planned: dict[str, Any]) -> PodBehaviour:
        def answer(command: list[str], index: int) -> Ended | Unfinished:
            results: dict[str, dict[str, Any]] = {
                "indexes": {"indexes": [{"index": "photos", "run": run, "images": 30}]},
                "planned": planned,
            }
            return Ended(results[command[-1]]) if command[-1] in results else answer_queries(command, index)

        return answer

    @staticmethod
    def base(server: ApiServer) -> str | None:
        """Of the plan Job."""
        env = server.get("jobs", "team-r1-plan")["spec"]["template"]["spec"]["containers"][0]["env"]
        return next((entry["value"] for entry in env if entry["name"] == "IMGSEARCH_RUN_BASE"), None)

    @pytest.mark.parametrize("published", ["r1", "r2"])
    def test_the_same_command_after_the_publication_changes_nothing(
        self, cli: Cli, server: ApiServer, published: str
    ) -> None:
        with Workers(server, self.serving("r0", {"planned": False, "base": None})):
            first = cli(*self.ARGUMENTS)
        assert first.returncode == 0, first.stderr
        assert self.base(server) == "r0"
        created = len(server.added_names("pods"))
        with Workers(server, self.serving(published, {"planned": True, "base": "r0"})):
            second = cli(*self.ARGUMENTS)
        assert second.returncode == 0, second.stderr
        assert "run r1 is done already, nothing was changed. Use --update with another --run" in second.stdout
        stages = [name for name in server.added_names("pods")[created:] if name.startswith("team-r1-")]
        assert stages == []

    def test_the_same_command_after_a_cleanup_keeps_the_base_of_the_plan(self, cli: Cli, server: ApiServer) -> None:
        with Workers(server, self.serving("r1", {"planned": True, "base": "r0"})):
            completed = cli(*self.ARGUMENTS)
        assert completed.returncode == 0, completed.stderr
        assert self.base(server) == "r0"

    def test_a_first_run_that_updates_nothing_stays_one(self, cli: Cli, server: ApiServer) -> None:
        with Workers(server, self.serving("r1", {"planned": True, "base": None})):
            completed = cli(*self.ARGUMENTS)
        assert completed.returncode == 0, completed.stderr
        assert self.base(server) is None
