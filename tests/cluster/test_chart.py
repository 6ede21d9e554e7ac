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
def empty(world: World) -> Iterator[World]:
    """A namespace without a release, as strict as that of the tests."""
    made = World(f"{world.namespace}-dry")
    made.kubectl("create", "namespace", made.namespace)
    made.kubectl("label", "namespace", made.namespace, "pod-security.kubernetes.io/enforce=restricted")
    yield made
    made.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_the_api_server_takes_every_object(empty: World, file: Path) -> None:
    done = empty.chart("template", yaml.safe_load(file.read_text()) or {}, "--kube-version", "1.29")
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    # A pod is only taken where its account is.
    empty.apply(*(one for one in objects if one["kind"] == "ServiceAccount"))
    told = json.loads(
        empty.kubectl("apply", "--dry-run=server", "--output=json", "--filename=-", input=yaml.safe_dump_all(objects))
    )
    assert sorted(map(name, told["items"])) == sorted(map(name, objects))


def name(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]
