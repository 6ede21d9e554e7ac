"""Serving: the port, and the processes that answer on it."""

from __future__ import annotations

from pathlib import Path

from imgsearch import machine
from imgsearch.errors import ExitCode, UsageError
from imgsearch.settings import Settings
from imgsearch.stores import embedded
from searcher.server.socket import listen

CPUS = 4
"""That one process is thought to keep busy; measured are 2 (docs/benchmarks.md). The models compute on all of them, but
HTTP, JSON and validation do on one only."""


def serve(settings: Settings) -> ExitCode:
    """Serves until SIGTERM or Ctrl-C, then lets running requests end. Raises UsageError."""
    count = processes(settings)
    with listen(settings.search.host, settings.search.port) as listener:
        # Imported here: the process that only looks after others needs little memory.
        if count == 1:
            from searcher.server.worker import answer

            answer(settings, listener)
            return ExitCode.DONE
        from searcher.server.supervisor import Workers

        return Workers(listener, count).run()


def processes(settings: Settings, *, cgroup: Path = machine.CGROUP) -> int:
    """How many processes answer. Raises UsageError where so many cannot."""
    count = settings.search.workers
    alone = embedded(settings.store.url)
    if count is None:
        # Without a limit of its own a container sees all cores of its node, and has not the memory for so many models.
        return max(1, machine.cpus(cgroup) // CPUS) if machine.limited(cgroup) and not alone else 1
    if count < 1:
        raise UsageError(f"IMGSEARCH_SEARCH_WORKERS={count} cannot answer: give 1 or more, or leave it out")
    if count > 1 and alone:
        raise UsageError(
            f"IMGSEARCH_SEARCH_WORKERS={count} needs a Chroma server, since files of Chroma are for one process at a "
            "time: start `chroma run` and give its address as IMGSEARCH_STORE_URL, or leave the number out"
        )
    return count
