"""The limit of connections: those that only hold one keep nobody out."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from imgsearch.errors import UsageError
from searcher.server.connections import connection_limit
from tests.programs import PAUSE_SECONDS
from tests.searcher.process import METRIC_SECONDS, SearcherProcess, metric, wait_for_metric, wait_for_text

SEARCH = b'{"text":"red","k":1}'
SEARCH_HEAD = (
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


def connect(server: SearcherProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed it."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_idle_connections_keep_no_client_out_and_leave_nothing_behind(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, open_files=256) as server, ExitStack() as connections:
        server.finish()
        wait_for_text(server.url, "/readyz", "ready")
        idle = [connections.enter_context(connect(server)) for _ in range(400)]
        for text in ("red", "green", "blue"):
            assert httpx.get(server.url + "/healthz", timeout=30).status_code == 200
            response = httpx.post(server.url + "/v1/search", json={"text": text, "k": 1}, timeout=30)
            assert response.json()["results"][0]["metadata"]["colour"] == text
        assert metric(server.url, "imgsearch_connections") == 128
        assert metric(server.url, 'imgsearch_connections_closed_total{reason="idle"}') >= 400 - 128
        assert metric(server.url, 'imgsearch_connections_closed_total{reason="busy"}') == 0
        assert sum(map(is_open, idle)) < 128
        assert server.log.read_text().count("the limit of 128 connections is reached") == 1
        assert "IMGSEARCH_SEARCH_MAX_CONNECTIONS" in server.log.read_text()
        connections.close()
        wait_for_metric(server.url, "imgsearch_connections", 1)  # the one that looks
        assert httpx.post(server.url + "/v1/search", json={"text": "yellow"}, timeout=30).status_code == 200
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nX-Slow:",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["headers", "body"],
)
def test_the_connection_that_was_silent_for_the_longest_time_makes_room(tmp_path: Path, begun: bytes) -> None:
    with (
        SearcherProcess(tmp_path, max_connections=2) as server,
        connect(server) as silent,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        silent.sendall(begun)
        # The second answer shows that the server has read what was sent before the first.
        for _ in range(2):
            assert client.get("/healthz").status_code == 200
        assert is_open(silent)
        assert httpx.get(server.url + "/healthz", timeout=30).status_code == 200  # a third connection
        assert not is_open(silent)
        closed = metric(server.url, 'imgsearch_connections_closed_total{reason="idle"}')
        assert client.get("/healthz").status_code == 200
        assert closed == 1


def test_a_connection_with_a_running_request_is_not_closed_for_a_new_one(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, max_connections=1) as server, ExitStack() as connections:
        wait_for_text(server.url, "/readyz", "ready")
        for _ in range(20):
            busy = connections.enter_context(connect(server))
            busy.sendall(SEARCH_HEAD % len(SEARCH) + SEARCH)
            refused = httpx.get(server.url + "/healthz", timeout=30)
            if refused.status_code == 503:
                break  # else the server has accepted both before it read the search
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        server.finish()
        assert busy.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert metric(server.url, 'imgsearch_connections_closed_total{reason="busy"}') >= 1


def test_a_client_that_reads_no_response_makes_room_whatever_it_sends_after(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, max_connections=1) as server, socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = urlsplit(server.url)
        silent.connect((address.hostname, address.port))
        # The responses have more bytes than the buffers of the system.
        silent.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
        deadline = time.monotonic() + METRIC_SECONDS
        while (status := httpx.get(server.url + "/healthz", timeout=30).status_code) == 503:
            assert time.monotonic() < deadline, "the server still waits for a client that does not read"
            time.sleep(PAUSE_SECONDS)
        assert status == 200
        assert "Traceback" not in server.log.read_text()


def test_a_running_request_is_not_closed_for_the_begun_one_behind_it(tmp_path: Path) -> None:
    with (
        SearcherProcess(tmp_path, max_connections=2) as server,
        connect(server) as busy,
        httpx.Client(base_url=server.url, timeout=30) as idle,
    ):
        while idle.get("/readyz").status_code != 200:
            time.sleep(PAUSE_SECONDS)
        busy.sendall(SEARCH_HEAD % len(SEARCH) + SEARCH + SEARCH_HEAD % 100 + b"{")
        while "imgsearch_encode_queue 1.0" not in idle.get("/metrics").text:
            time.sleep(PAUSE_SECONDS)
        assert httpx.get(server.url + "/healthz", timeout=30).status_code == 200  # instead of the idle one
        server.finish()
        assert busy.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("setting", "open_files", "limit"), [(None, 256, 128), (None, 129, 1), (None, 100_000, 1024), (2000, 2128, 2000)]
)
def test_the_limit_leaves_files_for_other_purposes(setting: int | None, open_files: int, limit: int) -> None:
    assert connection_limit(setting, open_files) == limit


@pytest.mark.parametrize(("setting", "open_files", "needed"), [(None, 128, 129), (2000, 2127, 2128)])
def test_too_few_open_files_are_one_clear_sentence(setting: int | None, open_files: int, needed: int) -> None:
    with pytest.raises(UsageError, match=f"at least {needed}, and it is {open_files};"):
        connection_limit(setting, open_files)
