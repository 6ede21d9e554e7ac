"""The graceful shutdown of a real process."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from tests.searcher.process import SearcherProcess, wait_for_text


def test_after_sigterm_it_is_not_ready_and_lingers_for_those_who_have_not_heard(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, linger_seconds=3600) as server, httpx.Client(base_url=server.url) as client:
        wait_for_text(server.url, "/readyz", "ready")
        server.finish()
        response = client.post("/v1/search", json={"text": "red"})
        assert "connection" not in response.headers
        server.process.send_signal(signal.SIGTERM)
        wait_for_text(server.url, "/readyz", "shutting down")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        last = client.post("/v1/search", json={"text": "blue"})
        assert last.status_code == 200
        assert last.headers["connection"] == "close"
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_end()


def test_when_it_has_lingered_it_ends(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, linger_seconds=0.2) as server:
        wait_for_text(server.url, "/readyz", "ready")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_end()
