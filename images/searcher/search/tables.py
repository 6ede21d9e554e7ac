"""The open tables of the served runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from imgsearch.errors import ImgsearchError, PermanentError
from imgsearch.stores import Pointer
from searcher.search.threads import Threads
from searcher.table.files import TableFiles
from searcher.table.reader import RunTable

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""The wait before a table that could not be opened is opened again: this may include a download."""


class Tables:
    """Opens each table once. A table that cannot be opened is no error: the store answers the searches of this run."""

    def __init__(self, files: TableFiles, *, threads: Threads, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._threads = threads
        self._clock = clock
        self._open: dict[str, RunTable | None] = {}
        """By run. None: the run has no table."""
        self._retries: dict[str, float] = {}
        """By run whose table could not be opened: the time of the next attempt, in seconds of the clock."""
        self._kept: Collection[str] = ()

    def opened(self, run: str) -> RunTable | None:
        """The table, if it is open."""
        return self._open.get(run)

    def is_due(self, run: str) -> bool:
        """Whether it is time for the next attempt to open the table."""
        return run in self._retries and self._clock() >= self._retries[run]

    async def open(self, pointer: Pointer) -> RunTable | None:
        """The table of the run; None where it has none, and where it cannot be opened."""
        run = pointer.run
        if run in self._open or (run in self._retries and not self.is_due(run)):
            return self.opened(run)
        try:
            table = await self._threads.load(self._files.open, run)
            if table is not None and table.rows != pointer.images:
                raise PermanentError(f"it has {table.rows} rows, but the run has {pointer.images} images")
        except ImgsearchError as error:
            log.warning("run %s is served without its table, so filters are slow: %s", run, error)
            self._retries[run] = self._clock() + RETRY_SECONDS
            return None
        self._open[run] = table
        self._retries.pop(run, None)
        return table

    async def keep(self, runs: Collection[str]) -> None:
        """Releases the tables of all other runs, and deletes their downloads."""
        if runs == self._kept:
            return
        self._kept = runs
        self._open = {run: table for run, table in self._open.items() if run in runs}
        self._retries = {run: retry for run, retry in self._retries.items() if run in runs}
        try:
            await self._threads.load(self._files.keep, runs)
        except ImgsearchError as error:
            log.warning("the downloads of old tables were not deleted: %s", error)
