"""Prometheus metrics of programs that end by themselves: seconds of work by stage, and the port they are read from."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Metric, start_http_server
from prometheus_client.registry import Collector

from imgsearch.errors import UsageError

log = logging.getLogger(__name__)


class StageMetrics:
    """The registry of one program, and how long each of its stages worked. Any thread may call."""

    def __init__(self, name: str, stages: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        self._stages = stages
        self._sample = f"{name}_stage_seconds_total"
        self._seconds = Counter(
            f"{name}_stage_seconds", "Seconds of work, summed over threads.", ["stage"], registry=self.registry
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts the seconds of the block, whether it ends well or not."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(stage).inc(time.perf_counter() - start)

    def stage_seconds(self) -> dict[str, float]:
        """The seconds so far, for a report: nobody may have scraped the last of them."""
        return {
            stage: round(self.registry.get_sample_value(self._sample, {"stage": stage}) or 0, 3)
            for stage in self._stages
        }


class _Watched(Collector):
    """A registry that notices when it has been read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._final = threading.Event()
        self._read = threading.Event()

    def collect(self) -> Iterator[Metric]:
        final = self._final.is_set()  # a read that has begun before may miss what came last
        yield from self._registry.collect()
        if final:
            self._read.set()

    def await_read(self, seconds: float) -> None:
        """Returns when somebody has read what is in it now, after `seconds` at the latest."""
        self._final.set()
        self._read.wait(seconds)


@contextmanager
def exposed(registry: CollectorRegistry, port: int | None, *, last_read: float = 0) -> Iterator[None]:
    """Serves the registry at /metrics of every address of this machine until the block ends; None: opens no port.

    After a block that ended well it goes on until the last figures have been read, for `last_read` seconds at the most.

    Raises UsageError where the port is taken or not ours to take."""
    if port is None:
        yield
        return
    watched = _Watched(registry)
    address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # `::` takes IPv4 too
    try:
        server, thread = start_http_server(port, address, watched)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "it is in use" if taken else getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot serve metrics on port {port}: {reason}; choose another with IMGSEARCH_METRICS_PORT"
        ) from error
    try:
        yield
        if last_read:
            log.info("going on for at most %.0f s, for the last metrics to be read", last_read)
            watched.await_read(last_read)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
