"""Jobs as the controller knows them, in whatever state a test wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.jobs.state import JobState, Phase, Stage


def job(stage: Stage, phase: Phase = Phase.COMPLETE, **fields: Any) -> JobState:
    """The Job of a stage of run r1, with `fields` of its state."""
    state = JobState(
        name=f"team-r1-{stage}",
        spec_hash="",
        stage=stage,
        phase=phase,
        completions=1,
        succeeded=frozenset(),
        failed=frozenset(),
        active=0,
        reason="",
        started="",
        finished="",
    )
    return replace(state, **fields)
