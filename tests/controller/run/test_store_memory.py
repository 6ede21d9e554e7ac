from __future__ import annotations

import pytest

from controller.jobs.results import PlanResult
from controller.run.store_memory import needed, shortage

NEEDED = 3_048_000_000
"""Bytes of a million vectors of 512 dimensions."""


@pytest.mark.parametrize("kept", [0, 400_000])
def test_vectors_that_do_not_fit_are_told_with_their_memory(kept: int) -> None:
    plan = PlanResult(shards=100, images=1_000_000 - kept, kept=kept, dim=512)
    assert needed(1_000_000, 512) == NEEDED
    assert shortage(plan, NEEDED) is None
    sentence = shortage(plan, NEEDED - 1)
    assert sentence is not None
    assert sentence.startswith(
        f"1,000,000 vectors of 512 dimensions take about {NEEDED / 1e9:.1f} GB of memory in the vector store, which "
        f"has {NEEDED / 1e9:.1f} GB: "
    )


@pytest.mark.parametrize(("dim", "memory"), [(None, 1), (512, None), (None, None)])
def test_without_a_dimension_or_a_memory_nothing_is_told(dim: int | None, memory: int | None) -> None:
    assert shortage(PlanResult(shards=1, images=10**9, dim=dim), memory) is None
