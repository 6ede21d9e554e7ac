"""The process: its port, and its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imgsearch.errors import UsageError
from imgsearch.settings import SearchSettings, Settings, StorageSettings, StoreSettings
from searcher.server.socket import listen
from tests.programs import ChromaServer, free_port, program_env
from tests.searcher.process import SearcherProcess, answers, refuses


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as refused:
            listen("127.0.0.1", port)
    assert f"port {port} " in str(refused.value)
    assert "--port" in str(refused.value)


def test_an_address_that_is_not_ours_is_one_clear_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1 port 8000"):
        listen("192.0.2.1", 8000)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_search_end_and_then_the_process(tmp_path: Path, stop: signal.Signals) -> None:
    with SearcherProcess(tmp_path) as server, ThreadPoolExecutor(1) as thread:
        answers(server.url, "/readyz", "ready")
        search = thread.submit(httpx.post, server.url + "/v1/search", json={"text": "red"}, timeout=30)
        answers(server.url, "/metrics", "imgsearch_encode_queue 1.0")
        server.process.send_signal(stop)
        refuses(server.url)
        assert not search.done()
        server.finish()
        assert search.result().status_code == 200
        assert server.ended()


def test_after_sigterm_it_is_not_ready_and_lingers_for_those_who_have_not_heard(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, linger_seconds=3600) as server, httpx.Client(base_url=server.url) as client:
        answers(server.url, "/readyz", "ready")
        server.finish()
        kept = client.post("/v1/search", json={"text": "red"})
        assert "connection" not in kept.headers
        server.process.send_signal(signal.SIGTERM)
        answers(server.url, "/readyz", "shutting down")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        last = client.post("/v1/search", json={"text": "blue"})
        assert last.status_code == 200
        assert last.headers["connection"] == "close"
        server.process.send_signal(signal.SIGTERM)
        assert server.ended()


def test_when_it_has_lingered_it_ends(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, linger_seconds=0.2) as server:
        answers(server.url, "/readyz", "ready")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended()


@pytest.mark.parametrize(
    ("host", "addresses"), [("0.0.0.0", ["127.0.0.1"]), ("::", ["127.0.0.1", "::1"]), ("::1", ["::1"])]
)
def test_it_listens_on_every_address_or_on_one(host: str, addresses: list[str]) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        for address in addresses:
            socket.create_connection((address, port)).close()
        if "127.0.0.1" not in addresses:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))


def test_it_starts_before_its_store_and_is_ready_when_that_answers(tmp_path: Path) -> None:
    (tmp_path / "chroma").mkdir()
    with ChromaServer(tmp_path / "chroma") as store:
        settings = Settings(
            storage=StorageSettings((tmp_path / "storage").as_uri()),
            store=StoreSettings(store.url),
            search=SearchSettings(port=free_port(), refresh_seconds=0.1),
        )
        url = f"http://127.0.0.1:{settings.search.port}"
        server = subprocess.Popen(
            [sys.executable, "-m", "searcher", "serve"], env=program_env(settings.to_env()), stderr=subprocess.DEVNULL
        )
        try:
            answers(url, "/readyz", f"{store.url} does not answer")
            assert httpx.get(url + "/readyz").status_code == 503
            assert httpx.get(url + "/healthz").status_code == 200
            store.start()
            answers(url, "/readyz", '"serving":{}')
            assert httpx.get(url + "/readyz").status_code == 200
            server.terminate()
            assert server.wait() == 0
        finally:
            server.kill()
            server.wait()
