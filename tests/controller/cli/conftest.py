"""A release in a cluster, and the command line on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.test_connection import kubeconfig
from tests.controller.cli.commands import WHERE, Cli
from tests.controller.objects import release
from tests.programs import controller


@pytest.fixture
def env(server: ApiServer, tmp_path: Path) -> dict[str, str]:
    for kind, objects in release(settings={"IMGSEARCH_JOBS_GPU_HOUR_PRICE": "2"}).items():
        for each in objects:
            server.put(kind, each)
    return {"KUBECONFIG": kubeconfig(tmp_path / "config", server.url)}


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    return lambda *words: controller(*words, *WHERE, env=env)
