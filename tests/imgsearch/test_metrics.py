"""Metrics of programs that end: read over HTTP while they run, from a port that they take and give back."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from imgsearch.errors import UsageError
from imgsearch.metrics import StageMetrics, exposed
from tests.programs import free_port


def test_the_seconds_of_a_stage_add_up_whether_it_ends_well_or_not() -> None:
    metrics = StageMetrics("imgsearch_test", ["read", "write"])
    with metrics.timed("read"):
        socket.getaddrinfo("127.0.0.1", None)
    seconds_before = metrics.registry.get_sample_value("imgsearch_test_stage_seconds_total", {"stage": "read"})
    assert seconds_before
    with pytest.raises(ZeroDivisionError), metrics.timed("read"):
        1 / 0  # noqa: B018
    seconds = metrics.registry.get_sample_value("imgsearch_test_stage_seconds_total", {"stage": "read"})
    assert seconds
    assert seconds > seconds_before
    assert metrics.stage_seconds() == {"read": round(seconds, 3), "write": 0}


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("imgsearch_test", "A test.", registry=registry).inc(3)
    return registry


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_registry_is_read_over_http_until_the_block_ends(registry: CollectorRegistry, host: str) -> None:
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    with exposed(registry, port):
        assert "imgsearch_test_total 3.0" in httpx.get(f"http://{host}:{port}/metrics").text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{host}:{port}/metrics")
    with exposed(registry, port):
        assert httpx.get(f"http://{host}:{port}/metrics").is_success


def test_without_a_port_none_is_opened(registry: CollectorRegistry) -> None:
    with exposed(registry, None):
        pass


def test_the_last_figures_stay_until_they_have_been_read(registry: CollectorRegistry) -> None:
    port = free_port()
    gauge = Gauge("imgsearch_last", "A test.", registry=registry)

    def work() -> None:
        with exposed(registry, port, last_read=60):
            gauge.set(7)

    worker = threading.Thread(target=work)
    worker.start()
    text = ""
    while worker.is_alive():
        try:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        except httpx.TransportError:  # not yet, or not any more
            continue
    assert "imgsearch_last 7.0" in text


def test_a_reader_that_is_slow_gets_all_of_them(registry: CollectorRegistry) -> None:
    gauge = Gauge("imgsearch_many", "More than the buffers of a socket take.", ["one"], registry=registry)
    for number in range(100_000):
        gauge.labels(f"{number:0100}")
    with lingering_server(registry) as (port, worker), socket.create_connection(("127.0.0.1", port)) as reader:
        reader.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert reader.recv(10)
        worker.join(1)
        assert worker.is_alive()
        while reader.recv(1 << 20):
            pass


def test_an_answer_that_came_too_late_for_its_reader_does_not_count(registry: CollectorRegistry) -> None:
    with lingering_server(registry) as (port, worker):
        httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "0"})
        worker.join(1)
        assert worker.is_alive()
        httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "60"})


@contextmanager
def lingering_server(registry: CollectorRegistry) -> Iterator[tuple[int, threading.Thread]]:
    """The port of something that has ended and waits to be read, and who waits; it ends with the block."""
    port = free_port()
    lingers = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lingers.set()

    def work() -> None:
        with exposed(registry, port, last_read=60):
            pass

    logger, log_handler = logging.getLogger("imgsearch.metrics"), Heard(logging.INFO)
    logger.addHandler(log_handler)
    logger.setLevel(logging.INFO)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert lingers.wait(60)
        yield port, worker
        worker.join(30)
        assert not worker.is_alive()
    finally:
        logger.removeHandler(log_handler)
        logger.setLevel(logging.NOTSET)


def test_nobody_waits_for_a_reader_of_what_has_failed(registry: CollectorRegistry) -> None:
    with pytest.raises(ZeroDivisionError), exposed(registry, free_port(), last_read=1e6):
        1 / 0  # noqa: B018


def test_a_port_in_use_is_one_clear_sentence(registry: CollectorRegistry) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError) as error, exposed(registry, port):
            pytest.fail("it was served")
    message = str(error.value)
    assert all(value in message for value in (f"port {port}", "in use", "IMGSEARCH_METRICS_PORT"))
    assert "\n" not in message


def test_a_port_that_does_not_exist_is_one_clear_sentence(registry: CollectorRegistry) -> None:
    with pytest.raises(UsageError, match="cannot serve metrics on port 99999"), exposed(registry, 99999):
        pytest.fail("it was served")
