"""The SkyPilot backend with machines that are processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.backends.skypilot.backend import (
    SkyBackend,
)
from tests.controller.backends.skypilot.embed_jobs import KEY, Connect
from tests.controller.machines import Clock, Machines


@pytest.fixture
def clock(machines: Machines) -> Clock:
    return Clock(machines)


@pytest.fixture
def connect(tmp_path: Path, machines: Machines, clock: Clock) -> Connect:
    def make(**arguments: Any) -> SkyBackend:
        env = {KEY: "hush", "IMGSEARCH_RUN_MODEL": "a/b"}
        return SkyBackend(tmp_path, machines, **{"env": env, "now": clock.now, "sleep": clock.sleep, **arguments})

    return make


@pytest.fixture
def backend(connect: Connect) -> SkyBackend:
    return connect()


@pytest.fixture
def machines_folder(tmp_path: Path) -> Path:
    """What all machines can see."""
    return tmp_path / "machines"
