"""The size of batches."""

from __future__ import annotations

import pytest

from searcher.ingest.fill import BATCH_SECONDS, SMALLEST_BATCH, BatchSize


def test_a_batch_grows_and_shrinks_towards_its_time() -> None:
    size = BatchSize()
    for _ in range(20):
        size.observe(size.records, size.records / 1000)  # 1 000 a second
    assert size.records == pytest.approx(1000 * BATCH_SECONDS, rel=0.05)
    for _ in range(20):
        size.observe(size.records, size.records / 10)
    assert size.records == SMALLEST_BATCH == 50
