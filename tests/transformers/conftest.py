"""The folder with transformers, and a hub: both are there before open_clip and huggingface_hub are imported."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hub import Hub, running_hub
from tests.programs import ROOT

TRANSFORMERS = ROOT / ".transformers"
HUB = pytest.StashKey[Hub]()


def pytest_configure(config: pytest.Config) -> None:
    if not TRANSFORMERS.is_dir():
        raise pytest.UsageError("transformers is not here: make install-transformers")
    sys.path.insert(0, str(TRANSFORMERS))
    resources = ExitStack()
    config.add_cleanup(resources.close)
    hub = resources.enter_context(running_hub())
    home = resources.enter_context(tempfile.TemporaryDirectory())
    os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": home}  # huggingface_hub reads them once
    config.stash[HUB] = hub


@pytest.fixture
def hub(pytestconfig: pytest.Config) -> Hub:
    """Without repositories."""
    hub = pytestconfig.stash[HUB]
    hub.models.clear()
    hub.requests.clear()
    return hub


@pytest.fixture
def cache(hub: Hub) -> Path:
    """The folder of the hub's cache, empty."""
    folder = Path(os.environ["HF_HOME"]) / "hub"
    for repository in folder.glob("models--*"):
        shutil.rmtree(repository)
    return folder
