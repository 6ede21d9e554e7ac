"""How many shards at a time, and how long to wait for a node: an embedding follows the capacity that there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from controller.jobs.state import JobState

LOOK_SECONDS = 30.0
"""Free GPUs are counted so often: what others let go of is taken within this time."""


class Capacity:
    """Of one run. It begins with `parallelism` shards at a time; where `most` is given, it takes what becomes free, up
    to that: `room` says how many more pods have room now, and `widen` lets a Job have more pods at a time. Pods that
    run are never taken away.

    `patience` is in seconds: how long an embedding may be without any node; None: for ever."""

    def __init__(
        self,
        parallelism: int,
        *,
        most: int | None = None,
        room: Callable[[], int] = lambda: 0,
        widen: Callable[[JobState, int], None] = lambda job, parallelism: None,
        patience: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.parallelism = parallelism
        self._most = most
        self._room = room
        self.widen = widen
        self._patience = patience
        self._clock = clock
        self._now = now
        self._looked: float | None = None

    def wider(self, job: JobState) -> int | None:
        """How many shards at a time a Job at work should have from now on; None: it stays as it is."""
        left = job.completions - len(job.succeeded) - len(job.failed)
        most = min(self._most or 0, left)
        if job.parallelism >= most or job.active < job.parallelism or job.waiting:
            return None  # it has all it may have, or a pod that does not run yet
        if self._looked is None:
            self._looked = self._clock()  # pods that were just made may not be on their nodes yet
        if self._clock() - self._looked < LOOK_SECONDS:
            return None
        self._looked = self._clock()
        room = self._room()
        return min(most, job.parallelism + room) if room > 0 else None

    def given_up(self, job: JobState) -> str | None:
        """Why to wait no longer for a node; None: to wait on."""
        if self._patience is None or not job.waiting_since:
            return None
        waited = (self._now() - datetime.fromisoformat(job.waiting_since)).total_seconds()
        if waited < self._patience:
            return None
        why = next(iter(job.waiting), "no node has room")
        return f"no node has had room for it in {waited:.0f} s ({why})"
