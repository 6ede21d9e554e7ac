"""Embedded runs to ingest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.searcher.ingest.bench import IngestBench


@pytest.fixture
def bench(tmp_path: Path) -> IngestBench:
    return IngestBench(tmp_path)
