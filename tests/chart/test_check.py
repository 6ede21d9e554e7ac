"""The program of `helm test`, asking a real searcher."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from searcher.server.socket import listen
from tests.chart.helm import CHART
from tests.searcher.library import Library, hashed


@contextmanager
def searcher(folder: Path, **limits: str) -> Iterator[str]:
    """The address of one that serves a small index."""
    library = Library(folder)
    library.publish()
    server = uvicorn.Server(uvicorn.Config(library.app(**limits), log_config=None))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


def check(url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """As the pod runs it: the text of the program on the command line."""
    return subprocess.run(
        [sys.executable, "-c", (CHART / "files" / "check.py").read_text()],
        env={"SEARCHER_URL": url, **env},
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_it_prints_what_is_served(tmp_path: Path) -> None:
    with searcher(tmp_path) as url:
        completed = check(url)
    assert completed.returncode == 0, completed.stderr
    assert 'ready: {"status": "ready"' in completed.stdout
    assert "index photos: run r1, 4 images" in completed.stdout


def test_a_searcher_that_wants_a_key_is_well(tmp_path: Path) -> None:
    with searcher(tmp_path, api_keys=hashed("key")) as url:
        completed = check(url)
    assert completed.returncode == 0, completed.stderr
    assert 'ready: {"status": "ready"' in completed.stdout
    assert "needs an API key" in completed.stdout
    assert "index photos" not in completed.stdout
