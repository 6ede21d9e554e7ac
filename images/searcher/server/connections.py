"""The limit of a process's connections: at the limit, the longest idle one makes room for a new one."""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import sys
import time
from collections import Counter, OrderedDict
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from imgsearch.errors import UsageError
from searcher.search.metrics import Metrics

log = logging.getLogger(__name__)

DEFAULT_CONNECTIONS = 1024
RESERVED_FILES = 128
"""Open files that a process needs besides its connections: for the store, storage, models, fetches of an `image_url`,
and connections that the system has accepted and the limit has not seen yet."""
LOG_SECONDS = 60.0
"""The shortest time between two log lines about the limit."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
"""The response to a client for whom there is no room."""


def connection_limit(setting: int | None, open_files: int) -> int:
    """The most connections of a process that may have so many open files. Raises UsageError if these are too few."""
    needed = (setting or 1) + RESERVED_FILES
    if open_files < needed:
        raise UsageError(
            f"IMGSEARCH_SEARCH_MAX_CONNECTIONS: {setting or 1} connections need a limit of open files of at least "
            f"{needed}, and it is {open_files}; raise it (`ulimit -n`)" + (", or set a lower number" if setting else "")
        )
    return setting or min(open_files - RESERVED_FILES, DEFAULT_CONNECTIONS)


def open_files_limit() -> int:
    """The number of files that this process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


class Connections:
    """The open connections of a process, up to a limit.

    At the limit, a new connection takes the place of one that waits for its client: for its next request, for the rest
    of one, or until it reads its response. Of these, the one goes whose client has been silent for the longest time, so
    clients that only hold connections keep nobody out. If the server works on a request of every connection, the new
    one gets 503."""

    def __init__(self, limit: int, *, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._open: OrderedDict[Connection, None] = OrderedDict()
        """The one whose client has been silent for the longest time is the first."""
        self._unlogged: Counter[str] = Counter()
        """The connections that were closed since the last log line, by reason."""
        self._next_log = -math.inf

    def protocol(self, **options: Any) -> Connection:
        """Makes the protocol of one connection. `options`: those that uvicorn gives to its protocols."""
        return Connection(self, **options)

    def add(self, connection: Connection) -> None:
        """Takes in a new connection, or refuses it."""
        if len(self._open) < self._limit:
            self._take_in(connection)
            return
        longest_silent = next((other for other in self._open if other.waits_for_client), None)
        if longest_silent is None:
            connection.refuse()
            self._closed("busy")
            return
        self.remove(longest_silent)
        longest_silent.transport.abort()  # not close(), which waits until the client has read what it did not read
        self._take_in(connection)
        self._closed("idle")

    def touch(self, connection: Connection) -> None:
        """Makes this connection the last that is closed for being idle: its client has sent or read something."""
        if connection in self._open:
            self._open.move_to_end(connection)

    def remove(self, connection: Connection) -> None:
        """Forgets a connection that ends."""
        if connection in self._open:
            del self._open[connection]
            self._metrics.connections.dec()

    def _take_in(self, connection: Connection) -> None:
        self._open[connection] = None
        self._metrics.connections.inc()

    def _closed(self, reason: str) -> None:
        self._metrics.connections_closed.labels(reason).inc()
        self._unlogged[reason] += 1
        now = time.monotonic()
        if now >= self._next_log:
            log.warning(
                "the limit of %d connections is reached; since the last message, %d idle connections were closed for "
                "new ones, and %d new ones were refused with 503; if all clients are wanted, raise "
                "IMGSEARCH_SEARCH_MAX_CONNECTIONS",
                self._limit,
                self._unlogged["idle"],
                self._unlogged["busy"],
            )
            self._unlogged.clear()
            self._next_log = now + LOG_SECONDS


class Connection(HttpToolsProtocol):
    """One connection, as uvicorn handles it, among the others of its process."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._all = connections
        self._running: RequestResponseCycle | None = None
        """The request that the server works on, or the last one. uvicorn's `cycle` is the last one that has arrived,
        which may wait in `pipeline` behind this one."""

    @property
    def waits_for_client(self) -> bool:
        """Whether the server has nothing to do for this connection until its client sends more, or reads more."""
        request = self._running
        return request is None or request.response_complete or request.more_body or self.flow.write_paused

    def refuse(self) -> None:
        """Responds with 503, and closes the connection."""
        self.transport.write(FULL)
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        self._all.touch(self)
        super().data_received(data)

    def resume_writing(self) -> None:
        self._all.touch(self)
        super().resume_writing()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle
        elif len(self.pipeline) == 1:
            # uvicorn pauses here, and would not see that the client hangs up. It pauses at the next request.
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        self._all.touch(self)
        if self.pipeline:
            self._running, _ = self.pipeline[-1]  # uvicorn starts it now
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.remove(self)
        super().connection_lost(exc)  # tells the last request only
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
