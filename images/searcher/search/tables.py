"""The open tables of the served runs."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError
from imgsearch.runs.documents import Table
from imgsearch.stores import Pointer
from searcher.search.threads import Threads
from searcher.table.files import TableFiles
from searcher.table.reader import RunTable

log = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
"""The wait before the small `table.json` of a run is read again: a restore writes a new table for a served run."""
LONGEST_WAIT_SECONDS = 3600.0
"""Before files that were damaged are read again. The wait begins with CHECK_SECONDS, and doubles."""


@dataclass(eq=False)
class _Entry:
    """A run whose table is wanted. Only the event loop reads and changes it."""

    run: str
    images: int
    """The rows that its table must have."""
    table: RunTable | None = None
    is_checked: bool = False
    """Whether a task reads it now."""
    check_at: float = -math.inf
    """Seconds on the clock, as `refused_until`."""
    refused: Table | None = None
    """The document of files that cannot be used."""
    refused_until: float = -math.inf
    wait: float = CHECK_SECONDS
    problem: str = ""


class Tables:
    """Opens the tables of runs in the background, since this may include a download.

    A table that cannot be opened is no error: the store answers the searches of its run. An open table is used until
    another one of the same run is open. All methods are for the event loop."""

    def __init__(self, files: TableFiles, *, threads: Threads, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._threads = threads
        self._clock = clock
        self._entries: dict[tuple[str, int], _Entry] = {}
        """By run and number of images."""
        self._kept: frozenset[str] = frozenset()
        """The runs of the last deletion."""
        self._is_deleting = False
        self._delete_at = -math.inf
        self._tasks: set[asyncio.Task[None]] = set()

    def opened(self, pointer: Pointer) -> RunTable | None:
        """The table of the run, if it is open."""
        entry = self._entries.get((pointer.run, pointer.images))
        return None if entry is None else entry.table

    def follow(self, pointers: Iterable[Pointer], changed: Callable[[], None]) -> None:
        """Opens the tables of these runs, in this order, and releases all others. Returns at once; `changed` is called
        after each table that was opened. Further calls look for new tables, and try again to open refused ones."""
        keys = dict.fromkeys((pointer.run, pointer.images) for pointer in pointers)
        self._entries = {key: self._entries.get(key) or _Entry(*key) for key in keys}
        now = self._clock()
        for entry in self._entries.values():
            if not entry.is_checked and now >= entry.check_at:
                entry.is_checked = True
                self._start(self._check(entry, changed))
        runs = frozenset(run for run, _ in keys)
        if runs != self._kept and not self._is_deleting and now >= self._delete_at:
            self._is_deleting = True
            self._start(self._delete_others(runs))

    def close(self) -> None:
        """Ends the tasks. A thread that reads a table ends by itself."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, entry: _Entry, changed: Callable[[], None]) -> None:
        try:
            document = await self._threads.tables(self._files.document, entry.run)
            is_followed = entry in self._entries.values()  # the downloads of another one may be deleted already
            if document is not None and is_followed and self._is_new(entry, document):
                await self._open(entry, document)
                changed()
        except Exception as error:  # whatever is wrong with one table, the others and the refreshes must go on
            if str(error) != entry.problem:
                entry.problem = str(error)
                known = isinstance(error, ImgsearchError)
                state = "without its table, so filters are slow" if entry.table is None else "with its last table"
                log.warning("run %s is served %s: %s", entry.run, state, error, exc_info=not known)
        finally:
            entry.is_checked = False
            entry.check_at = self._clock() + CHECK_SECONDS

    def _is_new(self, entry: _Entry, document: Table) -> bool:
        if entry.table is not None and document == entry.table.document:
            return False
        return document != entry.refused or self._clock() >= entry.refused_until

    async def _open(self, entry: _Entry, document: Table) -> None:
        try:
            if document.rows != entry.images:
                raise PermanentError(f"it has {document.rows} rows, but the run has {entry.images} images")
            entry.table = await self._threads.tables(self._files.open, document)
        except TemporaryError:
            raise
        except Exception:
            entry.wait = min(2 * entry.wait, LONGEST_WAIT_SECONDS) if document == entry.refused else CHECK_SECONDS
            entry.refused, entry.refused_until = document, self._clock() + entry.wait
            raise
        entry.refused, entry.problem = None, ""
        log.info("the table of run %s is open, %s rows", entry.run, document.rows)

    async def _delete_others(self, runs: frozenset[str]) -> None:
        """Deletes the downloads of all other runs."""
        try:
            await self._threads.tables(self._files.keep, runs)
            self._kept = runs
        except Exception as error:
            log.warning("the downloads of old tables were not deleted: %s", error)
            self._delete_at = self._clock() + CHECK_SECONDS
        finally:
            self._is_deleting = False
