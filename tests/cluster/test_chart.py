"""The API server takes each object that the chart makes, with each of the chart's own sets of values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, Object
from tests.cluster.world import World

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(scope="module")
def dry_run_world(world: World) -> Iterator[World]:
    """A namespace without a release, as strict as that of the tests."""
    new_world = World(f"{world.namespace}-dry")
    new_world.kubectl("create", "namespace", new_world.namespace)
    new_world.kubectl("label", "namespace", new_world.namespace, "pod-security.kubernetes.io/enforce=restricted")
    yield new_world
    new_world.kubectl("delete", "namespace", new_world.namespace, "--wait=false")


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_the_api_server_takes_every_object(dry_run_world: World, file: Path) -> None:
    completed = dry_run_world.chart("template", yaml.safe_load(file.read_text()) or {}, "--kube-version", "1.29")
    assert completed.returncode == 0, completed.stderr
    objects = [manifest for manifest in yaml.safe_load_all(completed.stdout) if manifest]
    # A pod is only taken where its account is.
    dry_run_world.apply(*(manifest for manifest in objects if manifest["kind"] == "ServiceAccount"))
    applied = json.loads(
        dry_run_world.kubectl(
            "apply", "--dry-run=server", "--output=json", "--filename=-", input=yaml.safe_dump_all(objects)
        )
    )
    assert sorted(map(name, applied["items"])) == sorted(map(name, objects))


def name(manifest: Object) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
