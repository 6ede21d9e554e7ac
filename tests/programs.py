"""The real programs as a user starts them: the controller's command, a searcher and a Chroma on free ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
CONTROLLER = [sys.executable, str(ROOT / "controller" / "main.py")]
WIDE = {"COLUMNS": "500"}
"""So that rich does not break the lines that tests read."""
PAUSE_SECONDS = 0.05
"""Between two looks at a program that begins: it needs the machine itself."""


def controller(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `controller WORDS` to its end."""
    return subprocess.run(
        [*CONTROLLER, *map(str, arguments)],
        env={**os.environ, **WIDE, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def program_env(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `python -m embedder` and `python -m searcher` find their packages."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'images'}", **settings}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ChromaServer:
    """A `chroma run` over one folder, which can be killed and started again on its port. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"chroma+http://127.0.0.1:{self.port}"

    def __enter__(self) -> ChromaServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once it answers."""
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--port", str(self.port)], stdout=log, stderr=log)
        while True:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/api/v2/heartbeat").is_success:
                    return
            time.sleep(PAUSE_SECONDS)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def await_ready(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the searcher is ready; fails with its log where it has ended."""
    while True:
        assert server.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            if client.get("/readyz").is_success:
                return
        time.sleep(PAUSE_SECONDS)


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[httpx.Client]:
    """A client of `controller serve --local` that is ready."""
    port = free_port()
    with (home / "serve.log").open("ab") as log:
        server = subprocess.Popen(
            [*CONTROLLER, "serve", "--local", "--home", str(home), "--port", str(port), *arguments],
            stdout=log,
            stderr=log,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await_ready(client, server, home / "serve.log")
                yield client
        finally:
            server.terminate()
            assert server.wait(60) == 0
