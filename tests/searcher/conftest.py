"""What the tests of the searcher share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.searcher.library import Library


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Nothing published yet."""
    return Library(tmp_path)


@pytest.fixture
def gallery(library: Library) -> Library:
    """One index with a red, a green, a blue and a yellow image."""
    library.publish()
    return library
