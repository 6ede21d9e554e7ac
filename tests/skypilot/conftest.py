"""A HOME of its own for SkyPilot, which is imported once, and clusters for it to look at.

Without SkyPilot there is nothing here to test."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.backends import skypilot
from tests.skypilot.cluster import CONTEXT, Cluster, kubeconfig

HOME = Path(tempfile.gettempdir(), f"imgsearch-skypilot-{os.getpid()}")

if not skypilot.installed():
    collect_ignore_glob = ["test_*.py"]
else:
    # Now, and not in a fixture: modules with tests import SkyPilot as they are collected.
    HOME.mkdir()
    for name in [*os.environ]:
        if name.startswith(("SKY", "KUBE")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["HOME"] = str(HOME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skypilot.load()


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def home() -> Path:
    """The person's HOME, in which nothing must be left but `.imgsearch`."""
    return HOME


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """That of the current context."""
    fake_cluster = Cluster()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {CONTEXT: fake_cluster.url}, current=CONTEXT)))
    yield fake_cluster
    fake_cluster.close()
