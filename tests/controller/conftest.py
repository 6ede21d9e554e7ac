"""An API server and a door to it, with a clock that moves only when somebody sleeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controller.backends.kubernetes.api import Api
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.machines import Machines


class Clock:
    """Seconds that pass at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[ApiServer]:
    api_server = ApiServer()
    yield api_server
    api_server.close()


@pytest.fixture
def api(server: ApiServer, clock: Clock) -> Iterator[Api]:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield Api(http, NAMESPACE, address=server.url, sleep=clock.sleep, clock=clock)
        server.close()
        for thread in threading.enumerate():
            if thread.name.startswith("watch-"):
                thread.join(30)
                assert not thread.is_alive(), f"{thread.name} was not stopped"


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    rented = Machines(tmp_path / "machines")
    yield rented
    rented.close()
