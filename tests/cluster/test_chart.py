"""The API server takes each object that the chart makes, with each of the chart's own sets of values, and a second
`kubectl apply` changes none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, Object
from tests.cluster.world import World, pause, wait_until

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
ALWAYS_CONFIGURED = {"poddisruptionbudget.policy"}
"""kubectl sends the selector of this kind with each apply, because its patch strategy is `replace`. The API server then
changes nothing."""
SETTLE_SECONDS = 20
"""More than the period of the autoscaler, which changes the Deployment."""


@contextmanager
def strict(namespace: str) -> Iterator[World]:
    """A new namespace without a release, as strict as that of the tests."""
    new_world = World(namespace)
    new_world.kubectl("create", "namespace", namespace)
    try:
        new_world.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        yield new_world
    finally:
        new_world.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def dry_run_world(world: World) -> Iterator[World]:
    with strict(f"{world.namespace}-dry") as new_world:
        yield new_world


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


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_a_second_apply_changes_nothing(world: World, file: Path) -> None:
    """Without the pod of `helm test`, which ends by itself."""
    with strict(f"{world.namespace}-{file.stem.removesuffix('-values')}") as new_world:
        options = ("--kube-version", "1.29", "--no-hooks")
        completed = new_world.chart("template", yaml.safe_load(file.read_text()) or {}, *options)
        assert completed.returncode == 0, completed.stderr
        try:
            new_world.kubectl("apply", "--filename=-", input=completed.stdout, seconds=60)
            before = wait_until(lambda: settled(new_world, completed.stdout), "the objects do not change")
            output = new_world.kubectl("apply", "--filename=-", input=completed.stdout, seconds=60)
            assert versions(new_world, completed.stdout) == before
            results = dict(re.findall(r"^(\S+) (.+)$", output, re.MULTILINE))
            assert len(results) == len(before)
            assert {
                name: result
                for name, result in results.items()
                if result != "unchanged" and name.partition("/")[0] not in ALWAYS_CONFIGURED
            } == {}
        finally:  # also what is in no namespace
            new_world.kubectl(
                "delete", "--filename=-", "--ignore-not-found", "--wait=false", input=completed.stdout, seconds=60
            )


def versions(world: World, manifests: str) -> dict[tuple[str, str], Any]:
    """Generation and resource version of each object."""
    found = json.loads(world.kubectl("get", "--output=json", "--filename=-", input=manifests, seconds=60))
    return {
        name(manifest): (manifest["metadata"].get("generation"), manifest["metadata"]["resourceVersion"])
        for manifest in found["items"]
    }


def settled(world: World, manifests: str) -> dict[tuple[str, str], Any] | None:
    """The versions, if no controller of the cluster has written a status for a while."""
    before = versions(world, manifests)
    pause(SETTLE_SECONDS)
    return before if versions(world, manifests) == before else None
