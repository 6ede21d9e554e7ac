"""The tasks of `sky/` on the real SkyPilot, in pods that it makes: they index what the chart's Jobs index, whether
somebody launches them or `controller run-pipeline --backend sky` does."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.jobs.state import Stage
from imgsearch.storage import Storage
from tests.cluster.conftest import EMBEDDER, REGISTRY, in_bucket, photo_files
from tests.cluster.load import pod
from tests.cluster.test_pools import SKY
from tests.cluster.world import World, stored_ids, wait_until
from tests.conftest import S3
from tests.programs import ROOT, WIDE, free_port

IMAGE = f"docker:{REGISTRY}/imgsearch-sky:0.1.0"
"""The code of every task, and the runtime that SkyPilot else installs from the internet."""
PROGRAMS = ROOT / ".venv-sky" / "bin"
SHARDS = 2
SHARD_SIZE = str(-(-(len(photo_files()) + 1) // SHARDS))
"""One more: a photo that is none."""
SMALL = {"cpus": "0.5", "memory": "2"}
"""What a pod asks for: every node of a test cluster may be the same two cores."""
MODEL = ROOT / "demo" / "model"
MODEL_THERE = "local-dir:/root/sky_workdir"
ACCOUNT = "skypilot"
"""As whom SkyPilot's pods run: one of its own making has a cluster role, which would be left behind."""
GATE = """
import os, time
from imgsearch.storage import Storage
gate = Storage(os.environ["GATE"])
gate.put("came/" + os.environ["JOB_COMPLETION_INDEX"] + "-" + str(time.time_ns()), b"")
while not gate.exists("open"):
    time.sleep(1)
"""
"""What an embedder does first: it says that it is there, and waits until it may begin."""

pytestmark = pytest.mark.gpu_node


@dataclass(frozen=True)
class SkyPilot:
    """SkyPilot with a home of its own, so with a server of its own, which makes pods in the namespace of `place`."""

    home: Path
    place: World
    env: dict[str, str] = field(repr=False)

    def run(self, *arguments: str | Path, check: bool = True, seconds: float = 400) -> str:
        """What `sky WORDS` prints."""
        completed = self._run([PROGRAMS / "sky", *arguments], seconds)
        assert completed.returncode == 0 or not check, completed.stdout + completed.stderr
        return completed.stdout

    def controller(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs `controller WORDS --backend sky` to its end."""
        return self._run(self._command(*arguments), seconds)

    @contextmanager
    def controlling(self, *arguments: str) -> Iterator[Controlling]:
        """`controller WORDS --backend sky` while the block runs; killed at its end as by a power cut."""
        log = self.home / "controller.log"
        with (
            log.open("ab") as output,
            subprocess.Popen(self._command(*arguments), env=self.env, stdout=output, stderr=output) as process,
        ):
            try:
                yield Controlling(process, log)
            finally:
                process.kill()

    def machines(self) -> list[str]:
        """The names of their pods."""
        return [pod["metadata"]["name"] for pod in self.place.get("pods", "--selector", "parent=skypilot")["items"]]

    def _command(self, *arguments: str) -> list[str | Path]:
        options = ("--backend", "sky", "--home", self.home / "runs", "--sky-tasks", self.home / "tasks")
        return [PROGRAMS / "python", ROOT / "controller" / "main.py", *arguments, *options]

    def _run(self, command: list[str | Path], seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )


@dataclass(frozen=True)
class Controlling:
    """A controller at work."""

    process: subprocess.Popen[bytes]
    log: Path

    def is_at_work(self) -> bool:
        """Fails with all that it has said where it has ended."""
        assert self.process.poll() is None, self.log.read_text()
        return True


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A prefix of its own with the photos, and one file that only looks like one, in `photos`."""
    if not S3:
        pytest.skip("IMGSEARCH_TEST_S3 names no bucket of an S3 server")
    uri = f"{S3}/sky-{time.time_ns()}"
    source = Storage(f"{uri}/photos")
    for file in photo_files():
        source.put(file.name, file.read_bytes())
    source.put("broken.jpg", b"no photo")
    yield uri
    Storage(uri).delete("")


@pytest.fixture(scope="module")
def jobs(world: World, values: dict[str, Any], bucket: str) -> Iterator[World]:
    """A release over the bucket, whose Chroma lets SkyPilot's pods in, with run `jobs` of its Jobs. Nobody searches.
    Every other run has an index of its own: of one, the store keeps the last two runs."""
    pods = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"parent": "skypilot"}}}
    quiet = {**values, "searcher": {"replicas": 0}}
    with in_bucket(world, quiet, "sky", f"{bucket}/index", {"chromaFrom": [pods]}) as new_world:
        completed = new_world.controller(
            "run-pipeline", f"{bucket}/photos", "--run", "jobs", "--shard-size", SHARD_SIZE
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        yield new_world


@pytest.fixture(scope="module")
def sky(jobs: World, gpu_node: str, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyPilot]:
    """SkyPilot with a namespace that is neither `restricted` nor closed, since it is root in its pods."""
    sky_world = World(f"{jobs.namespace}-sky")
    sky_world.kubectl("create", "namespace", sky_world.namespace)
    sky_world.kubectl("create", "serviceaccount", ACCOUNT)
    rights = ("--clusterrole=edit", f"--serviceaccount={sky_world.namespace}:{ACCOUNT}")
    sky_world.kubectl("create", "rolebinding", ACCOUNT, *rights)
    home = tmp_path_factory.mktemp("sky")
    configured(home, sky_world.namespace, gpu_node)
    tasks(home / "tasks", bucket)
    env = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        "SKYPILOT_API_SERVER_LOCAL_PORT": str(free_port()),
        "IMGSEARCH_STORAGE_URI": f"{bucket}/index",
        "IMGSEARCH_STORE_URL": f"chroma+http://{jobs.release}-chroma.{jobs.namespace}:8000",
        **{name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")},
        "AWS_REGION": os.environ["AWS_DEFAULT_REGION"],
        **WIDE,
    }
    skypilot = SkyPilot(home, sky_world, env)
    try:
        yield skypilot
    finally:
        # What a killed controller was giving back may be gone by now, which is an error to SkyPilot.
        skypilot.run("down", "--yes", "--all", check=False)
        skypilot.run("api", "stop")
        sky_world.kubectl("delete", "namespace", sky_world.namespace, "--wait=false", check=False)


def configured(home: Path, namespace: str, node: str) -> None:
    """Writes what SkyPilot reads there."""
    folder = home / ".sky"
    prices = folder / "catalogs" / "v8" / "common" / "accelerators.csv"
    prices.parent.mkdir(parents=True)
    # Else it is fetched from the internet, and so are prices, of which a Kubernetes has none.
    prices.write_text("AcceleratorName,Clouds\nL4,Kubernetes\n")
    pod = yaml.safe_load((ROOT / "sky" / "config.yaml").read_text())["kubernetes"]["pod_config"]
    # The image has what SkyPilot installs: an index of packages would be asked, and in vain.
    pod["spec"]["containers"][0]["env"] = [{"name": "UV_OFFLINE", "value": "1"}]
    # The one node that has the image.
    pod["spec"] |= {"nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": [{"operator": "Exists"}]}
    config = {"kubernetes": {"namespace": namespace, "remote_identity": ACCOUNT, "pod_config": pod}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def tasks(folder: Path, bucket: str) -> None:
    """Those of `sky/`, as a person changes them for machines of their own; with a gate before embedding."""
    folder.mkdir()
    for stage in Stage:
        task = yaml.safe_load((ROOT / "sky" / f"{stage}.yaml").read_text())
        task["resources"] |= {**SMALL, "infra": "k8s", "image_id": IMAGE}
        task["workdir"] = str(MODEL)
        if stage is Stage.EMBED:
            task["envs"]["GATE"] = f"{bucket}/gate"
            task["run"] = f"/opt/venv/bin/python - <<'END'{GATE}END\n{task['run']}"
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(task))


def test_sky_launch_indexes_what_the_jobs_index(jobs: World, sky: SkyPilot, bucket: str, tmp_path: Path) -> None:
    run = {
        "IMGSEARCH_RUN_ID": "launched",
        "IMGSEARCH_RUN_INDEX": "launched",
        "IMGSEARCH_RUN_SOURCE": f"{bucket}/photos",
        "IMGSEARCH_RUN_MODEL": MODEL_THERE,
        "IMGSEARCH_STORAGE_URI": sky.env["IMGSEARCH_STORAGE_URI"],
        "IMGSEARCH_STORE_URL": sky.env["IMGSEARCH_STORE_URL"],
        "AWS_ENDPOINT_URL": sky.env["AWS_ENDPOINT_URL"],
        "AWS_REGION": sky.env["AWS_REGION"],
    }
    secret = {name: sky.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    (tmp_path / "run.env").write_text("".join(f"{name}={value}\n" for name, value in run.items()))
    (tmp_path / "bucket.env").write_text("".join(f"{name}={value}\n" for name, value in secret.items()))

    def launch(name: str, *arguments: str) -> str:
        """On the one machine, which the first call makes."""
        files = ("--env-file", tmp_path / "run.env", "--secret-file", tmp_path / "bucket.env")
        resources = [option for name, value in SMALL.items() for option in (f"--{name}", value)]
        gpu = ("--gpus", "L4:1", "--no-use-spot")
        options = ("--cluster", "gpu", "--infra", "k8s", "--image-id", IMAGE, *resources, *gpu)
        return sky.run(
            "launch", "--yes", *options, "--workdir", MODEL, *files, *arguments, ROOT / "sky" / f"{name}.yaml"
        )

    launch("plan")
    launch("embed", "--env", "JOB_COMPLETION_INDEX=0")
    launch("ingest")

    assert stored_ids(jobs, "launched", "launched") == stored_ids(jobs, "photos", "jobs")
    assert len(stored_ids(jobs, "launched", "launched")) == jobs.ask("report", "launched")["images"]
    sky.run("down", "--yes", "--all")


@pytest.mark.timeout(2400)  # four machines, each in 40 seconds, or in minutes where much else goes on
def test_a_controller_that_is_killed_and_a_machine_that_is_taken_away_change_nothing(
    jobs: World, sky: SkyPilot, bucket: str
) -> None:
    gate = Storage(f"{bucket}/gate")
    source = (f"{bucket}/photos", "--model", MODEL_THERE, "--shard-size", SHARD_SIZE)
    chosen = ("--accelerator", "L4:1", "--spot", "never", "--parallelism", str(SHARDS))
    command = ("run-pipeline", *source, *chosen, "--run", "rented", "--index", "rented")

    def begun_shards() -> list[str]:
        """The shards that have been begun, in order."""
        return sorted(key.removeprefix("came/").partition("-")[0] for key in gate.keys("came"))

    with sky.controlling(*command) as controller:
        wait_until(lambda: controller.is_at_work() and begun_shards() == ["0", "1"], "both embedders", seconds=900)
        # SkyPilot takes a machine back whose launch is cut off, and then this test would have none to take away.
        wait_until(lambda: all_run(stage(sky, "embed")), "the controller has seen both at work", seconds=300)
    (machine,) = [name for name in sky.machines() if "-embed-1-" in name]
    sky.place.kubectl("delete", "pod", machine, "--now")
    gate.put("open", b"")

    completed = sky.controller(*command)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert begun_shards() == ["0", "1", "1"]
    assert sky.machines() == []
    assert stored_ids(jobs, "rented", "rented") == stored_ids(jobs, "photos", "jobs")
    report = sky.controller("report", "rented", "--output", "json")
    assert report.returncode == 0, report.stderr
    job_report, sky_report = jobs.ask("report", "jobs"), json.loads(report.stdout)
    assert job_report["bad"] == 1
    assert {name: sky_report[name] for name in ("images", "bad")} == {
        name: job_report[name] for name in ("images", "bad")
    }


def stage(sky: SkyPilot, name: str) -> dict[str, Any]:
    """A stage of the run as `controller status` has it."""
    completed = sky.controller("status", "rented", "--output", "json")
    assert completed.returncode == 0, completed.stderr
    return next(entry for entry in json.loads(completed.stdout)["stages"] if entry["stage"] == name)


def all_run(embed: dict[str, Any]) -> bool:
    """Whether the embedding stage has machines and none is still being prepared."""
    return bool(embed["gpu_hours"] > 0 and not embed["waiting"])


def test_what_the_cluster_has_no_gpus_for_overflows_to_rented_machines(jobs: World, sky: SkyPilot, bucket: str) -> None:
    release = World(jobs.namespace, jobs.release, program=SKY, env=sky.env)
    source = (f"{bucket}/photos", "--run", "overflowed", "--index", "overflowed")  # one shard
    overflow_options = (
        "--overflow",
        "sky",
        "--overflow-after",
        "1",
        "--sky-tasks",
        str(without_gpus(sky.home / "overflow")),
    )
    gpu_pod = pod("holder", EMBEDDER, ["sleep", "infinity"], labels={"app": "holder"})
    gpu_pod["spec"]["tolerations"] = [{"operator": "Exists"}]
    gpu_pod["spec"]["containers"][0].setdefault("resources", {})["limits"] = {"nvidia.com/gpu": "2", "memory": "64Mi"}
    release.apply(gpu_pod)
    try:
        release.kubectl("wait", "--for=condition=Ready", "pod/holder", "--timeout=120s")
        completed = release.controller("run-pipeline", *source, *overflow_options)
    finally:
        release.kubectl("delete", "pod", "holder", "--grace-period=1")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    job = jobs.job("overflowed", "embed")
    assert job is not None
    assert job["spec"]["suspend"] is True, "its waiting pods wake no autoscaler"
    assert "succeeded" not in job["status"]
    (embed,) = [entry for entry in jobs.ask("status", "overflowed")["stages"] if entry["stage"] == "embed"]
    assert (embed["state"], embed["done"]) == ("complete", 1)
    assert sky.machines() == []
    assert stored_ids(jobs, "overflowed", "overflowed") == stored_ids(jobs, "photos", "jobs")


def without_gpus(folder: Path) -> Path:
    """The task of embedding for machines without GPUs, with the release's model where its pods have it."""
    folder.mkdir()
    task = yaml.safe_load((ROOT / "sky" / "embed.yaml").read_text())
    task["resources"] = {**SMALL, "infra": "k8s", "image_id": IMAGE}
    task["file_mounts"] = {"/models/litecl-small": str(MODEL)}
    (folder / "embed.yaml").write_text(yaml.safe_dump(task))
    return folder
