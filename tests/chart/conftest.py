"""What the tests of the chart share: the programs, and the chart rendered with each of its sets of values."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.chart.helm import CHART, Helm, Objects
from tests.chart.monitoring import MONITORING, Promtool

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


def program(name: str, url: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on the PATH; get it from {url}")
    return path


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(program("helm", "https://helm.sh/docs/intro/install/"))


@pytest.fixture(scope="session")
def helm_docs() -> str:
    return program("helm-docs", "https://github.com/norwoodj/helm-docs")


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool", "https://prometheus.io/download/ (Debian's package is called prometheus)")


@pytest.fixture(scope="session", params=VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def chart(request: pytest.FixtureRequest, helm: Helm) -> Objects:
    """The chart with each of its sets of values in turn."""
    return helm.template(request.param)


@pytest.fixture(scope="session")
def default(helm: Helm) -> Objects:
    return helm.template()


@pytest.fixture(scope="session")
def everything(helm: Helm) -> Objects:
    return helm.template(CHART / "ci" / "everything-values.yaml")


@pytest.fixture(scope="session")
def external_store(helm: Helm) -> Objects:
    return helm.template(CHART / "ci" / "external-store-values.yaml")


@pytest.fixture(scope="session")
def monitored(helm: Helm) -> Objects:
    return helm.template({"monitoring": MONITORING, "pipeline": {"recall": 0.95}})


@pytest.fixture
def tool(promtool: str, tmp_path: Path) -> Promtool:
    return Promtool(promtool, tmp_path)
