"""A searcher over fakes in a process of its own, for what only a process shows: sockets, signals, its end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from tests.programs import PAUSE_SECONDS

ROOT = Path(__file__).parents[2]
METRIC_SECONDS = 20.0
"""The longest wait for a value of /metrics."""

PROGRAM = """
import json, sys, threading
from pathlib import Path
from imgsearch.settings import SearchSettings
from searcher.content.url_rules import is_allowed
from searcher.search.metrics import Metrics
from searcher.server.connections import Connections, connection_limit, open_files_limit
from searcher.server.socket import listen
from searcher.server.worker import run_server
from tests.searcher.library import Library

library = Library(Path(sys.argv[1]))
library.publish()
library.address_check = lambda address, listed: address.is_loopback or is_allowed(address, listed)
library.encoder.unblocked.clear()
listener = listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)


def finish_when_told():
    sys.stdin.readline()
    library.encoder.unblocked.set()


threading.Thread(target=finish_when_told, daemon=True).start()
limits = json.loads(sys.argv[2])
settings, metrics = SearchSettings(**limits), Metrics()
connections = Connections(connection_limit(settings.max_connections, open_files_limit()), metrics=metrics)
run_server(library.app(metrics, **limits), listener, settings, library.stopping, connections)
print("done", flush=True)
"""


class SearcherProcess:
    """A searcher whose model waits, in a process of its own. Its log goes to the file `log`."""

    def __init__(self, folder: Path, *, open_files: int = 1024, **limits: float | str) -> None:
        """`open_files`: the most that it may have (`ulimit -n`)."""
        program = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(limits)]
        folder.mkdir(exist_ok=True)
        self.log = folder / "searcher.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *program],
                cwd=ROOT,
                env={"PYTHONPATH": f"{ROOT}:{ROOT / 'images'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def __enter__(self) -> SearcherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def finish(self) -> None:
        """Lets the model answer."""
        assert self.process.stdin
        self.process.stdin.write("finish\n")
        self.process.stdin.flush()

    def wait_for_end(self) -> bool:
        """Waits for its end; whether that was in order."""
        assert self.process.stdout
        return self.process.stdout.read() == "done\n" and self.process.wait() == 0


def wait_for_text(url: str, path: str, text: str) -> None:
    """Returns once it answers with the text."""
    while True:
        with suppress(httpx.ConnectError):
            if text in httpx.get(url + path, timeout=30).text:
                return
        time.sleep(PAUSE_SECONDS)


def metric(url: str, sample: str) -> float:
    """The value of a sample of /metrics, written as there; 0 where there is none."""
    lines = httpx.get(url + "/metrics", timeout=30).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} ")), 0.0)


def wait_for_metric(url: str, sample: str, value: float) -> None:
    """Returns once the sample has this value. Fails with its last value."""
    deadline = time.monotonic() + METRIC_SECONDS
    while (found := metric(url, sample)) != value:
        assert time.monotonic() < deadline, f"{sample} is {found}, not {value}"
        time.sleep(PAUSE_SECONDS)


def refuses(url: str) -> None:
    """Returns once no connection is taken any more."""
    with suppress(httpx.TransportError):
        while True:
            httpx.get(url + "/healthz")
            time.sleep(PAUSE_SECONDS)
