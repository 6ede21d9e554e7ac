"""Worker processes that share one socket: their number, start, restart and shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from imgsearch import machine
from imgsearch.errors import ExitCode, TemporaryError, UsageError
from imgsearch.settings import Settings
from imgsearch.stores import embedded

log = logging.getLogger(__name__)

CPUS_PER_WORKER = 4
"""CPUs that one worker can use, an estimate: 2 were measured (docs/benchmarks.md). The models use all CPUs, but
HTTP, JSON and validation use one only."""
STARTED = b"started\n"
"""The line that a worker writes to stdout once it serves."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder of the workers' shared metrics. prometheus_client reads it, too
(https://prometheus.github.io/client_python/multiprocess/)."""


def worker_count(settings: Settings, *, cgroup: Path = machine.CGROUP) -> int:
    """The number of processes that serve. Raises UsageError if the store allows only one."""
    count = settings.search.workers
    files = embedded(settings.store.url)
    if count is None:
        # A container without a CPU limit sees all cores of its node, but has no memory for so many models.
        return max(1, machine.cpus(cgroup) // CPUS_PER_WORKER) if machine.limited(cgroup) and not files else 1
    if count > 1 and files:
        raise UsageError(
            f"IMGSEARCH_SEARCH_WORKERS={count} needs a Chroma server, because only one process at a time can open "
            "Chroma files: start `chroma run` and set IMGSEARCH_STORE_URL to its URL, or leave the number out"
        )
    return count


class Supervisor:
    """Keeps `count` processes of searcher.server.worker running.

    uvicorn has a supervisor (uvicorn.supervisors.Multiprocess), but it cannot run a DrainingServer, restarts a worker
    that fails to start again and again, and has no exit code for that."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self._listener = listener
        self._count = count
        self._running: set[Process] = set()
        self._first = asyncio.Event()
        """The first worker has started, or has ended."""
        self._stopping = asyncio.Event()
        self._failed: int | None = None
        """The exit status of a worker that ended before it had started."""

    def run(self) -> ExitCode:
        """Runs the workers until a signal, or until one fails to start: then returns its exit code. Main thread only.

        Raises TemporaryError if a worker was killed before it had started."""
        with tempfile.TemporaryDirectory(prefix="searcher-") as metrics_folder:
            asyncio.run(self._run(metrics_folder))
        if self._failed is None:
            return ExitCode.DONE
        if self._failed < 0:
            raise TemporaryError(
                f"a worker process was killed by {signal.Signals(-self._failed).name} before it had started, maybe for "
                "lack of memory; raise the memory limit, or lower IMGSEARCH_SEARCH_WORKERS"
            )
        return ExitCode(self._failed)

    async def _run(self, metrics_folder: str) -> None:
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, self._stop, sig)
        first = asyncio.create_task(self._keep(metrics_folder))
        await self._first.wait()  # so that invalid settings are reported once, not by each worker
        await asyncio.gather(first, *(self._keep(metrics_folder) for _ in range(self._count - 1)))

    async def _keep(self, metrics_folder: str) -> None:
        """Keeps one worker running until the shutdown."""
        while not self._stopping.is_set():
            worker = await self._start(metrics_folder)
            assert worker.stdout
            started = await worker.stdout.readline() == STARTED
            self._first.set()
            status = await worker.wait()
            self._running.discard(worker)
            mark_process_dead(worker.pid, metrics_folder)  # type: ignore[no-untyped-call]
            if self._stopping.is_set():
                return
            if started:
                log.warning("worker %d exited with status %d; starting another", worker.pid, status)
            else:
                self._failed = status
                self._stop(signal.SIGTERM)

    async def _start(self, metrics_folder: str) -> Process:
        descriptor = self._listener.fileno()
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "searcher.server.worker", str(descriptor)),
            stdin=PIPE,  # nothing is written; the worker stops at the end of the file, when this process is gone
            stdout=PIPE,
            pass_fds=[descriptor],
            process_group=0,  # else Ctrl-C would reach it twice, from the terminal and from here, and end it at once
            env={**os.environ, METRICS_FOLDER: metrics_folder},
        )
        self._running.add(worker)
        if self._stopping.is_set():  # set while it was being started
            worker.terminate()
        return worker

    def _stop(self, sig: signal.Signals) -> None:
        """Passes each signal on to the workers, which handle the first and the second one."""
        self._stopping.set()
        self._listener.close()  # each worker has its own copy
        for worker in self._running:
            with suppress(ProcessLookupError):
                worker.send_signal(sig)
