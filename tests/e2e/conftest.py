"""COCO128 indexed with the demo model, once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import DEMO_MODEL
from tests.programs import controller


@pytest.fixture(scope="session")
def coco128_home(coco128: Path, shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Whoever changes it takes a copy."""

    def fill(home: Path) -> None:
        completed = controller("run-pipeline", coco128, "--local", "--home", home, "--model", DEMO_MODEL)
        assert completed.returncode == 0, completed.stderr
        assert "128 images searchable" in completed.stdout

    return shared_folder("coco128", fill)
