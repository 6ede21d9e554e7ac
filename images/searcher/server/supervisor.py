"""Several processes that answer on one socket: one that dies is replaced, and all leave together."""

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

from prometheus_client.multiprocess import mark_process_dead

from imgsearch.errors import ExitCode, TemporaryError

log = logging.getLogger(__name__)

BEGUN = b"begun\n"
"""What a worker writes to stdout once it can answer."""
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder of the metrics that workers count together, which prometheus_client reads too
(https://prometheus.github.io/client_python/multiprocess/)."""


class Workers:
    """Looks after `count` processes of searcher.server.worker.

    uvicorn has such a supervisor (uvicorn.supervisors.Multiprocess), but that one takes no server of another kind than
    its own, which ends without lingering; starts without end what cannot start, and has no exit code of its own."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self._listener = listener
        self._count = count
        self._running: set[Process] = set()
        self._first = asyncio.Event()
        """The first one has begun, or ended."""
        self._leaving = asyncio.Event()
        self._failed: int | None = None
        """The exit status of one that ended before it had begun."""

    def run(self) -> ExitCode:
        """Returns when a signal has ended them all, or one could not begin: then with its exit code. Main thread only.

        Raises TemporaryError where one was killed before it could begin."""
        with tempfile.TemporaryDirectory(prefix="searcher-") as counts:
            asyncio.run(self._all(counts))
        if self._failed is None:
            return ExitCode.DONE
        if self._failed < 0:
            raise TemporaryError(
                f"a process of the searcher was ended by {signal.Signals(-self._failed).name} before it could answer; "
                "it may have too little memory: give it more, or fewer IMGSEARCH_SEARCH_WORKERS"
            )
        return ExitCode(self._failed)

    async def _all(self, counts: str) -> None:
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, self._leave, sig)
        first = asyncio.create_task(self._keep(counts))
        await self._first.wait()  # settings that one cannot begin with are one sentence, not one of each
        await asyncio.gather(first, *(self._keep(counts) for _ in range(self._count - 1)))

    async def _keep(self, counts: str) -> None:
        """Keeps one worker running, until all leave."""
        while not self._leaving.is_set():
            worker = await self._start(counts)
            assert worker.stdout
            begun = await worker.stdout.readline() == BEGUN
            self._first.set()
            status = await worker.wait()
            self._running.discard(worker)
            mark_process_dead(worker.pid, counts)  # type: ignore[no-untyped-call]
            if self._leaving.is_set():
                return
            if begun:
                log.warning("process %d has ended with status %d; another takes its place", worker.pid, status)
            else:
                self._failed = status
                self._leave(signal.SIGTERM)

    async def _start(self, counts: str) -> Process:
        descriptor = self._listener.fileno()
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "searcher.server.worker", str(descriptor)),
            stdin=PIPE,  # nothing is written; its end tells the worker that this process is gone
            stdout=PIPE,
            pass_fds=[descriptor],
            process_group=0,  # a Ctrl-C goes to a whole group, and from here too; a second one would end at once
            env={**os.environ, COUNTS: counts},
        )
        self._running.add(worker)
        if self._leaving.is_set():  # since it was started
            worker.terminate()
        return worker

    def _leave(self, sig: signal.Signals) -> None:
        """Passes the signal on, and a second one too: the workers know what either means."""
        self._leaving.set()
        self._listener.close()  # the workers have it for as long as they take connections
        for worker in self._running:
            with suppress(ProcessLookupError):
                worker.send_signal(sig)
