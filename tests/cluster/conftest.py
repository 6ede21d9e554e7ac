"""The namespace that the cluster tests share: `restricted`, closed by default, with photos and a model on volumes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

from demo import __main__ as demo
from imgsearch.sources import open_source
from tests.cluster.inspector import Inspector
from tests.cluster.load import pod
from tests.cluster.times import Stopwatch, Times
from tests.cluster.world import World, serves, wait_until
from tests.conftest import COCO128, ROOT

REGISTRY = os.environ.get("IMGSEARCH_TEST_REGISTRY", "localhost")
CLIENT = f"{REGISTRY}/imgsearch-controller:0.1.0"
"""An image with Python, for pods of the tests."""
EMBEDDER = f"{REGISTRY}/imgsearch-embedder:0.1.0"
"""The image that the GPU node has."""
VALUES = Path(__file__).with_name("values.yaml")
FEW = "/sources/photos/few"
COPIES = 10
"""Of each photo, for runs that must last until something has been killed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-times", action="store_true", help="write bench/results/cluster.json")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu_node: embeds on the GPU node, which no other test may use meanwhile")
    config.addinivalue_line("markers", "alone: disturbs the whole cluster, so no other test may run meanwhile")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "values" in metafunc.fixturenames:
        hardware = "gpu" if metafunc.definition.get_closest_marker("gpu_node") else "cpu"
        metafunc.parametrize("values", [hardware], indirect=True, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(1200))  # nodes die, come back, and load torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The run that others start from is looked at first: a node that is killed takes its pods' logs along.
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


class ByKind(LoadScopeScheduling):
    """Gives all tests with GPUs to one process, and all others to another."""

    def _split_scope(self, nodeid: str) -> str:
        return "gpu" if re.search(r"\bgpu\b", nodeid) else "cpu"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByKind:
    return ByKind(config, log)


@pytest.fixture(scope="session")
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Values of the release under test. It embeds on GPUs for the tests that have the GPU node to themselves, and
    without GPUs for all others, so that both kinds of tests can run at the same time."""
    document: dict[str, Any] = yaml.safe_load(VALUES.read_text().replace("REGISTRY", REGISTRY))
    if request.param == "cpu":
        del document["embed"]["gpu"]
    return document


@pytest.fixture(scope="session")
def world(values: dict[str, Any]) -> Iterator[World]:
    """The release installed in a namespace of its own; no run yet."""
    hardware = "gpu" if "gpu" in values["embed"] else "cpu"
    new_world = World(f"imgsearch-test-{hardware}-{int(time.time()) % 100_000}")
    new_world.kubectl("create", "namespace", new_world.namespace)
    try:
        new_world.kubectl("label", "namespace", new_world.namespace, "pod-security.kubernetes.io/enforce=restricted")
        new_world.apply(DENY, claim("photos"), claim("models"))
        fill(new_world)
        new_world.install(values)
        yield new_world
    finally:
        new_world.kubectl("delete", "namespace", new_world.namespace, "--wait=false", check=False)


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> Iterator[Times]:
    timings = Times()
    yield timings
    if request.config.getoption("--save-times"):
        timings.save()


@pytest.fixture(scope="session")
def inspector(world: World) -> Inspector:
    return Inspector(world, CLIENT)


@pytest.fixture(scope="session")
def indexed(world: World, values: dict[str, Any], photos: int, times: Times) -> str:
    """The id of a run of 4 shards, published as `photos`."""
    watch = Stopwatch()
    completed = world.controller("run-pipeline", FEW, "--run", "first", "--shard-size", str(-(-photos // 4)))
    seconds = watch.seconds
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "searchable" in completed.stdout
    stages = world.ask("status", "first")["stages"]
    jobs = sum(_seconds(stage["started"], stage["finished"]) for stage in stages)
    if "gpu" in values["embed"]:  # one row, also where one process has both kinds
        times.note("the controller's share of a run of 4 shards", "s", seconds - jobs)
    with world.searcher() as client:
        wait_until(lambda: serves(client, "photos", "first"), "the searcher has loaded the model")
    return "first"


@pytest.fixture(scope="session")
def gpu_node(world: World) -> str:
    """The node with GPUs."""
    return next(
        str(node["metadata"]["name"])
        for node in world.get("nodes")["items"]
        if int(node["status"]["allocatable"].get("nvidia.com/gpu", 0))
    )


@pytest.fixture(scope="session")
def photos() -> int:
    """How many there are at /sources/photos/few."""
    return sum(1 for _ in open_source(str(_photos())).items())


def need_photos(photos: int, *, at_least: int) -> None:
    """Fails the test at once where there are too few for it."""
    if photos < at_least:
        pytest.fail(f"this test needs {at_least} photos, and {_photos()} has {photos}: put COCO128 into {COCO128}")


@contextmanager
def in_bucket(
    world: World, values: Mapping[str, Any], release: str, uri: str, policy: Mapping[str, Any] | None = None
) -> Iterator[World]:
    """Another release in the namespace, which keeps its runs at `uri` in the bucket; `policy` opens its network."""
    bucket_world = World(world.namespace, release)
    secret = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    literals = [f"--from-literal={name}={value}" for name, value in secret.items()]
    bucket_world.kubectl("create", "secret", "generic", release, *literals)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    bucket_world.install(
        {
            **values,
            "sources": [],
            "storage": {
                "uri": uri,
                "existingSecret": release,
                "env": {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": os.environ["AWS_DEFAULT_REGION"]},
            },
            "networkPolicy": {"egressPorts": [443, 80, urlsplit(endpoint).port], **(policy or {})},
        }
    )
    yield bucket_world
    bucket_world.helm("uninstall", bucket_world.release, "--wait")


def fill(world: World) -> None:
    """Puts the photos and the model onto the volumes, through a pod."""
    world.apply(FILLER)
    world.kubectl("wait", "--for=condition=Ready", "pod/filler", "--timeout=300s", seconds=310)
    world.kubectl("cp", str(_photos()), "filler:/sources/photos/few")
    world.kubectl("cp", str(ROOT / "demo" / "model"), "filler:/models/litecl-small")
    world.python(
        "filler",
        "import pathlib, shutil\n"
        "many = pathlib.Path('/sources/photos/many'); many.mkdir()\n"
        "for file in pathlib.Path('/sources/photos/few').iterdir():\n"
        f"    for copy in range({COPIES}): shutil.copyfile(file, many / f'{{copy:02}}-{{file.name}}')\n",
    )


def _photos() -> Path:
    """COCO128 where it is at hand, or else the demo's."""
    return COCO128 if COCO128.is_dir() else Path(demo.photos())


def photo_files() -> list[Path]:
    """The files at /sources/photos/few."""
    return sorted(file for file in _photos().iterdir() if file.is_file())


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }


DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "default-deny"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}

FILLER = pod("filler", CLIENT, ["sleep", "infinity"], labels={"app": "filler"})
FILLER["spec"]["securityContext"] = {"fsGroup": 10001}
FILLER["spec"]["volumes"] = [
    {"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("photos", "models")
]
FILLER["spec"]["containers"][0]["volumeMounts"] = [
    {"name": "photos", "mountPath": "/sources/photos"},
    {"name": "models", "mountPath": "/models"},
]


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
