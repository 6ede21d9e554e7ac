"""Prometheus metrics of programs that end by themselves: seconds of work by stage, and the port they are read from."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
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


class _Reads(Collector):
    """Has nothing to show; notices that its registry is read."""

    def __init__(self) -> None:
        self._read = threading.Event()

    def collect(self) -> Iterable[Metric]:
        self._read.set()
        return ()

    def await_next(self, seconds: float) -> None:
        self._read.clear()
        self._read.wait(seconds)


@contextmanager
def exposed(registry: CollectorRegistry, port: int | None, *, last_read: float = 0) -> Iterator[None]:
    """Serves the registry at /metrics of every address of this machine until the block ends; None: opens no port.

    After a block that ended well it goes on until the last figures have been read, for `last_read` seconds at the most.

    Raises UsageError where the port is taken or not ours to take."""
    if port is None:
        yield
        return
    address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # `::` takes IPv4 too
    try:
        server, thread = start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "it is in use" if taken else getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot serve metrics on port {port}: {reason}; choose another with IMGSEARCH_METRICS_PORT"
        ) from error
    reads = _Reads()
    registry.register(reads)
    try:
        yield
        if last_read:
            log.info("going on for at most %.0f s, for the last metrics to be read", last_read)
            reads.await_next(last_read)
    finally:
        registry.unregister(reads)
        server.shutdown()
        thread.join()
        server.server_close()
