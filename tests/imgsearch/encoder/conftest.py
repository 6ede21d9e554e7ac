"""Models for the tests of encoders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def model_folder(demo_model: str, tmp_path: Path) -> Path:
    """A copy of the demo's model."""
    return Path(shutil.copytree(demo_model.removeprefix("local-dir:"), tmp_path / "model"))
