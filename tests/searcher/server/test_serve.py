"""The process: its port, and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imgsearch.settings import SearchSettings, Settings, StorageSettings, StoreSettings
from tests.programs import ChromaServer, free_port, program_env
from tests.searcher.process import SearcherProcess, refuses, wait_for_text


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_search_end_and_then_the_process(tmp_path: Path, stop: signal.Signals) -> None:
    with SearcherProcess(tmp_path) as server, ThreadPoolExecutor(1) as thread:
        wait_for_text(server.url, "/readyz", "ready")
        search = thread.submit(httpx.post, server.url + "/v1/search", json={"text": "red"}, timeout=30)
        wait_for_text(server.url, "/metrics", "imgsearch_encode_queue 1.0")
        server.process.send_signal(stop)
        refuses(server.url)
        assert not search.done()
        server.finish()
        assert search.result().status_code == 200
        assert server.wait_for_end()


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
            wait_for_text(url, "/readyz", store.url)
            assert httpx.get(url + "/readyz").status_code == 503
            assert httpx.get(url + "/healthz").status_code == 200
            store.start()
            wait_for_text(url, "/readyz", '"serving":{}')
            assert httpx.get(url + "/readyz").status_code == 200
            server.terminate()
            assert server.wait() == 0
        finally:
            server.kill()
            server.wait()
