"""The memory that the vectors of a run take in the vector store. Pure."""

from __future__ import annotations

from controller.jobs.results import PlanResult

VALUE_BYTES = 4
"""Of one dimension of a vector."""
VECTOR_BYTES = 1_000
"""Of a vector beside its dimensions: its neighbours in the graph, its id, and its part of the database's cache.
Measured by `python -m bench million` (docs/scale.md)."""


def needed(images: int, dim: int) -> int:
    """Bytes."""
    return images * (dim * VALUE_BYTES + VECTOR_BYTES)


def shortage(plan: PlanResult, memory: int | None) -> str | None:
    """A sentence where the vectors of the planned run do not fit into `memory`, in bytes. None where they do, and where
    the memory or the dimension is not known."""
    if memory is None or plan.dim is None:
        return None
    images = plan.images + plan.kept
    bytes = needed(images, plan.dim)
    if bytes <= memory:
        return None
    return (
        f"{images:,} vectors of {plan.dim:,} dimensions take about {bytes / 1e9:,.1f} GB of memory in the vector "
        f"store, which has {memory / 1e9:,.1f} GB: give it more before the run is ingested, or it is killed or becomes "
        "very slow (docs/scale.md)"
    )
