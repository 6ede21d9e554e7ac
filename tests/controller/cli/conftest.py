"""A release in a cluster, and the command line on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import RELEASE_OPTIONS, Cli
from tests.controller.kubeconfigs import kubeconfig
from tests.controller.objects import release
from tests.programs import controller


@pytest.fixture
def env(server: ApiServer, tmp_path: Path) -> dict[str, str]:
    for kind, objects in release(settings={"IMGSEARCH_JOBS_GPU_HOUR_PRICE": "2"}).items():
        for manifest in objects:
            server.put(kind, manifest)
    return {"KUBECONFIG": kubeconfig(tmp_path / "config", server.url)}


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    return lambda *arguments: controller(*arguments, *RELEASE_OPTIONS, env=env)
