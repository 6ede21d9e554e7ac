"""The process: its port, and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imgsearch.errors import UsageError
from searcher.serve import listen

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys, threading
from pathlib import Path
from imgsearch.settings import SearchSettings
from searcher.serve import listen, run
from tests.searcher.library import Library

library = Library(Path(sys.argv[1]))
library.publish()
library.encoder.gate.clear()
listener = listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)


def finish_when_told():
    sys.stdin.readline()
    library.encoder.gate.set()


threading.Thread(target=finish_when_told, daemon=True).start()
run(library.app(), listener, SearchSettings())
print("done", flush=True)
"""


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as refused:
            listen("127.0.0.1", port)
    assert str(refused.value) == f"port {port} is in use; choose another with --port"


def test_an_address_that_is_not_ours_is_one_clear_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1 port 8000"):
        listen("192.0.2.1", 8000)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_search_end_and_then_the_process(tmp_path: Path, stop: signal.Signals) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'images'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin
    assert program.stdout
    url = f"http://127.0.0.1:{program.stdout.readline().strip()}"
    with program, ThreadPoolExecutor(1) as thread:
        try:
            answers(url, "/readyz", "ready")
            search = thread.submit(httpx.post, url + "/v1/search", json={"text": "red"}, timeout=30)
            answers(url, "/metrics", "imgsearch_encode_queue 1.0")
            program.send_signal(stop)
            refuses(url)
            assert not search.done()
            program.stdin.write("finish\n")
            program.stdin.flush()
            assert search.result().status_code == 200
            assert program.stdout.read() == "done\n"
            assert program.wait() == 0
        finally:
            program.kill()


def answers(url: str, path: str, text: str) -> None:
    """Returns once the answer holds the text."""
    while text not in httpx.get(url + path).text:
        pass


def refuses(url: str) -> None:
    """Returns once no connection is taken any more."""
    while True:
        try:
            httpx.get(url + "/healthz")
        except httpx.TransportError:
            return
