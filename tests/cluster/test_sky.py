"""The tasks of `sky/` by `sky launch`: in pods that SkyPilot makes they index what the chart's Jobs index."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgsearch.storage import Storage
from tests.cluster.conftest import REGISTRY, in_bucket, photo_files
from tests.cluster.world import World, stored
from tests.conftest import S3
from tests.programs import ROOT, free_port

IMAGE = f"docker:{REGISTRY}/imgsearch-sky:0.1.0"
"""The code of every task, and the runtime that SkyPilot else installs from the internet."""
PROGRAM = ROOT / ".venv-sky" / "bin" / "sky"
SHARDS = 2
SMALL = ("--cpus", "0.5", "--memory", "2")
"""What a pod asks for: every node of a test cluster may be the same two cores."""
ACCOUNT = "skypilot"
"""As whom SkyPilot's pods run: one of its own making has a cluster role, which would be left behind."""


class SkyPilot:
    """SkyPilot's command with a home of its own, so with a server of its own, which makes pods in `namespace`."""

    def __init__(self, home: Path, namespace: str, node: str) -> None:
        self._env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "KUBECONFIG": os.environ["KUBECONFIG"],
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(free_port()),
        }
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

    def run(self, *words: str | Path, seconds: float = 400) -> str:
        """What `sky WORDS` prints."""
        done = subprocess.run(
            [PROGRAM, *words],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def sky(world: World, gpu_node: str, tmp_path: Path) -> Iterator[SkyPilot]:
    """SkyPilot with a namespace that is neither `restricted` nor closed, since it is root in its pods."""
    place = World(f"{world.namespace}-sky")
    place.kubectl("create", "namespace", place.namespace)
    place.kubectl("create", "serviceaccount", ACCOUNT)
    may = ("--clusterrole=edit", f"--serviceaccount={place.namespace}:{ACCOUNT}")
    place.kubectl("create", "rolebinding", ACCOUNT, *may)
    made = SkyPilot(tmp_path, place.namespace, gpu_node)
    try:
        yield made
    finally:
        made.run("down", "--yes", "--all")
        made.run("api", "stop")
        place.kubectl("delete", "namespace", place.namespace, "--wait=false", check=False)


@pytest.fixture
def bucket() -> Iterator[str]:
    """A prefix of its own with the photos in `photos`."""
    if not S3:
        pytest.skip("IMGSEARCH_TEST_S3 names no bucket of an S3 server")
    uri = f"{S3}/sky-{time.time_ns()}"
    source = Storage(f"{uri}/photos")
    for file in photo_files():
        source.put(file.name, file.read_bytes())
    yield uri
    Storage(uri).delete("")


@pytest.fixture
def jobs(world: World, values: dict[str, Any], bucket: str) -> Iterator[World]:
    """A release over the bucket, whose Chroma lets SkyPilot's pods in. Nobody searches."""
    pods = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"parent": "skypilot"}}}
    quiet = {**values, "searcher": {"replicas": 0}}
    with in_bucket(world, quiet, "sky", f"{bucket}/index", {"chromaFrom": [pods]}) as made:
        yield made


def test_sky_launch_indexes_what_the_jobs_index(
    jobs: World, sky: SkyPilot, bucket: str, photos: int, tmp_path: Path
) -> None:
    size = str(-(-photos // SHARDS))
    done = jobs.controller("run-pipeline", f"{bucket}/photos", "--run", "jobs", "--shard-size", size)
    assert done.returncode == 0, done.stdout + done.stderr

    run = {
        "IMGSEARCH_RUN_ID": "sky",
        "IMGSEARCH_RUN_INDEX": "photos",
        "IMGSEARCH_RUN_SOURCE": f"{bucket}/photos",
        "IMGSEARCH_RUN_MODEL": "local-dir:/root/sky_workdir",
        "IMGSEARCH_STORAGE_URI": f"{bucket}/index",
        "IMGSEARCH_STORE_URL": f"chroma+http://{jobs.release}-chroma.{jobs.namespace}:8000",
        "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
        "AWS_REGION": os.environ["AWS_DEFAULT_REGION"],
    }
    secret = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    (tmp_path / "run.env").write_text("".join(f"{name}={value}\n" for name, value in run.items()))
    (tmp_path / "bucket.env").write_text("".join(f"{name}={value}\n" for name, value in secret.items()))

    def launch(name: str, cluster: str, *words: str) -> str:
        files = ("--env-file", tmp_path / "run.env", "--secret-file", tmp_path / "bucket.env")
        model = ("--workdir", ROOT / "demo" / "model")
        where = ("--cluster", cluster, "--infra", "k8s", "--image-id", IMAGE, *SMALL)
        return sky.run("launch", "--yes", *where, *model, *files, *words, ROOT / "sky" / f"{name}.yaml")

    launch("plan", "cpu", "--env", f"IMGSEARCH_RUN_SHARD_IMAGES={size}")
    for shard in range(SHARDS):
        gpu = ("--gpus", "L4:1", "--no-use-spot")
        launch("embed", "gpu", *gpu, "--env", f"JOB_COMPLETION_INDEX={shard}")
    launch("ingest", "cpu")

    assert stored(jobs, "photos", "sky") == stored(jobs, "photos", "jobs")
    assert len(stored(jobs, "photos", "sky")) == jobs.ask("report", "sky")["images"]
