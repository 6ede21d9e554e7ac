"""The number of shards at a time, and the time to wait for a node: the embedding follows the free capacity."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from controller.jobs.state import JobState

COUNT_SECONDS = 30.0
"""Interval between two counts of free GPUs."""


class Capacity:
    """Capacity of one run. It begins with `parallelism` shards at a time. With `most`, it grows up to that many while
    GPUs are free; `free_pods` counts the pods for which GPUs are free now. Running pods are never removed.

    `wait_seconds` is the time in seconds that an embedding waits without any node; None: no limit."""

    def __init__(
        self,
        parallelism: int,
        *,
        most: int | None = None,
        free_pods: Callable[[], int] = lambda: 0,
        wait_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.parallelism = parallelism
        self._most = most
        self._free_pods = free_pods
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._now = now
        self._counted: float | None = None

    def wider(self, job: JobState) -> int | None:
        """The new number of shards at a time of a running Job; None: no change."""
        if job.queue:
            return None  # Kueue would stop all its pods, to admit the Job anew (docs/adr/0020)
        remaining = job.completions - len(job.succeeded) - len(job.failed)
        most = min(self._most or 0, remaining)
        if job.parallelism >= most or job.active < job.parallelism or job.waiting or job.refused:
            return None  # it is at the limit, or it has a pod that does not run yet
        if self._counted is None:
            self._counted = self._clock()  # new pods may not be on their nodes yet
        if self._clock() - self._counted < COUNT_SECONDS:
            return None
        self._counted = self._clock()
        free = self._free_pods()
        return min(most, job.parallelism + free) if free > 0 else None

    def given_up(self, job: JobState) -> str | None:
        """The reason to stop waiting for a node; None: wait on."""
        if self._wait_seconds is None or not job.waiting_since:
            return None
        waited = (self._now() - datetime.fromisoformat(job.waiting_since)).total_seconds()
        if waited < self._wait_seconds:
            return None
        reason = next(iter(job.waiting), "its pods wait")
        return f"no node had room within {waited:.0f} s ({reason})"
