"""The progress of a run: a live table on a terminal, or a line for each change in a pipe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live

from controller.cli.tables import of_total, reasons, summary, table, waits, working
from controller.jobs.state import JobState, Stage

RATE_SECONDS = {Stage.EMBED: 20.0, Stage.INGEST: 60.0}
"""The rate is that of this time, so that it follows changes. Ingest logs its progress after whole parts."""


class Rate:
    """Images a second of the stage that works on images, over a sliding window."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stage: Stage | None = None
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, jobs: Mapping[Stage, JobState]) -> float | None:
        """The rate now; None until the count of images has changed, and where no stage works on images."""
        job = working(jobs)
        if job is None:
            return None
        if job.stage is not self._stage:
            self._stage = job.stage
            self._samples.clear()
        now, done = self._clock(), job.images_done
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_SECONDS[job.stage]:
            self._samples.popleft()
        (then, before), seconds = self._samples[0], now - self._samples[0][0]
        return (done - before) / seconds if done > before and seconds > 0 and then < now else None


class RunView:
    """Shows a running run. A context manager: the live table ends with it."""

    def __init__(
        self,
        run: str,
        console: Console,
        *,
        gpu_hour_price: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._price = gpu_hour_price
        self._console = console
        self._rate = Rate(clock)
        self._line: str | None = None
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> RunView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, jobs: Mapping[Stage, JobState]) -> None:
        rate = self._rate.update(jobs)
        if self._live:
            rows = table(self._run, jobs, rate, gpu_hour_price=self._price)
            self._live.update(Group(rows, *reasons(jobs)), refresh=True)
            return
        line = "; ".join([*(_words(job, jobs) for job in jobs.values()), *waits(jobs)])
        if line != self._line:
            self._line = line
            self._console.print(f"run {self._run}: {line or 'starting'}", highlight=False, markup=False, soft_wrap=True)


def _words(job: JobState, jobs: Mapping[Stage, JobState]) -> str:
    figures = summary(job, jobs)
    words = f"{job.stage} {job.phase}"
    if job.stage is Stage.EMBED:
        words += f", {figures['done']}/{figures['of']} shards"
    if figures["images"] or figures["images_of"]:
        words += f", {of_total(figures['images'], figures['images_of'])} images"
    if figures["bad"]:
        words += f", {figures['bad']} bad"
    if figures["failed"]:
        words += f", {figures['failed']} failed"
    return words
