"""Prometheus metrics of programs that run as Jobs: the seconds of work by stage, and the server of /metrics."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, make_wsgi_app, start_http_server

from imgsearch.errors import UsageError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)


class StageMetrics:
    """The registry of one program, with the seconds of work of each stage. Any thread may call."""

    def __init__(self, name: str, stages: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        self._stages = stages
        self._sample = f"{name}_stage_seconds_total"
        self._seconds = Counter(
            f"{name}_stage_seconds", "Seconds of work, summed over threads.", ["stage"], registry=self.registry
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts the seconds of the block, also if it raises an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(stage).inc(time.perf_counter() - start)

    def stage_seconds(self) -> dict[str, float]:
        """The seconds so far, for a report, since Prometheus may miss the last of them."""
        return {
            stage: round(self.registry.get_sample_value(self._sample, {"stage": stage}) or 0, 3)
            for stage in self._stages
        }


class _Watched:
    """A WSGI application that notices when a response has been sent before the scrape timeout. Prometheus sends its
    timeout in a header, and ignores a later response
    (https://github.com/prometheus/docs/blob/main/docs/instrumenting/writing_exporters.md#scheduling)."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._final = threading.Event()
        self._read = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        final = self._final.is_set()  # a response that started before may lack the last values
        deadline = time.monotonic() + float(environ.get("HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS", "inf"))

        def sent() -> None:
            if final and time.monotonic() < deadline:
                self._read.set()

        return _Response(self._app(environ, start_response), sent=sent)

    def await_read(self, seconds: float) -> None:
        """Returns after the current values have been read, at the latest after `seconds`."""
        self._final.set()
        log.info("waiting at most %.0f s until the last metrics are read", seconds)
        self._read.wait(seconds)


class _Response:
    """The body of a response. The server calls `close` after it has sent all of it
    (https://peps.python.org/pep-3333/#specification-details)."""

    def __init__(self, body: Iterable[bytes], *, sent: Callable[[], None]) -> None:
        self._body = body
        self.close = sent

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


@contextmanager
def exposed(registry: CollectorRegistry, port: int | None, *, last_read: float = 0) -> Iterator[None]:
    """Serves the registry at /metrics, on every address of this machine, until the block ends. None: opens no port.

    After a block without an error, it waits until the last values have been read, at most `last_read` seconds.

    Raises UsageError if the port is in use or not permitted."""
    if port is None:
        yield
        return
    address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # `::` accepts IPv4 too
    try:
        server, thread = start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "it is in use" if in_use else getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot serve metrics on port {port}: {reason}; choose another with IMGSEARCH_METRICS_PORT"
        ) from error
    watched = _Watched(make_wsgi_app(registry))
    server.set_app(watched)
    try:
        yield
        if last_read:
            watched.await_read(last_read)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
