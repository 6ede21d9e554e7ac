"""The Kubernetes backend on the fake API server, with a release of the chart in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from controller.backends.kubernetes.api import Api
from controller.backends.kubernetes.backend import KubernetesBackend
from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.pipelines import NOW, Connect
from tests.controller.conftest import Clock
from tests.controller.objects import RELEASE, release


@pytest.fixture
def installed(server: ApiServer) -> ApiServer:
    """The server, with a release of the chart."""
    for kind, objects in release().items():
        for manifest in objects:
            server.put(kind, manifest)
    return server


@pytest.fixture
def connect(api: Api, installed: ApiServer, clock: Clock) -> Iterator[Connect]:
    backends: list[KubernetesBackend] = []

    def make(**arguments: Any) -> KubernetesBackend:
        backends.append(KubernetesBackend(api, RELEASE, **{"clock": clock, "now": lambda: NOW, **arguments}))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture
def backend(connect: Connect) -> KubernetesBackend:
    return connect()
