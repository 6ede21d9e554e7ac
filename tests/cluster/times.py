"""Times that the tests see on their way, for docs/benchmarks.md: noted always, kept with `--save-times`."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from bench.benchmark import machine
from bench.results import PAGE, Figure, Result, page

ABOUT = """\
Measured by the cluster tests (`make bench-cluster`), on any cluster. Most seconds are Kubernetes' own.

- **The controller's share** is the time of a run beyond its three Jobs, from the command to its last line.
- **A killed node**: from the loss of the node until a pod embeds again, and how long the node was away. A cluster needs
  a while to notice the loss, and starts pods again with a growing pause.
- **The autoscaler**: from the first search of eight clients until three search servers are ready, and from the last
  search until one is left.

All nodes of this cluster share the cores of one machine."""


class Times:
    """Figures by their row and column."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def note(self, case: str, column: str, seconds: float) -> None:
        self.figures.append(Figure(case, column, round(seconds, 1)))

    def save(self) -> None:
        today = datetime.now(UTC).date().isoformat()
        Result("cluster", "In a cluster", ABOUT, machine(), today, quick=False, tables={"": self.figures}).save()
        PAGE.write_text(page())


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
