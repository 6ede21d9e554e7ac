"""A folder of photos, an index of them and a server, which the pictures of the docs show."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.__main__ import photos

WIDTH = 100
"""Columns of the terminal."""
URL = "http://127.0.0.1:8000"
CONTROLLER = Path(sys.executable).with_name("controller")


@dataclass(frozen=True)
class Workspace:
    """A temporary folder that is also the user's home. It holds `photos` and `model`."""

    folder: Path

    def run(self, *arguments: str) -> str:
        """Runs a command of `controller` and returns its stdout."""
        process = subprocess.run(
            [CONTROLLER, *arguments],
            cwd=self.folder,
            env=self._env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return process.stdout

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Runs `controller serve` on port 8000. The block begins when the server is ready."""
        with subprocess.Popen(
            [CONTROLLER, "serve", "--local"], cwd=self.folder, env=self._env(), start_new_session=True
        ) as server:
            try:
                _wait_until_ready()
                yield
            finally:
                os.killpg(server.pid, signal.SIGTERM)

    def _env(self) -> dict[str, str]:
        terminal = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "PYTHONWARNINGS": "ignore"}
        return {**os.environ, **terminal, "HOME": str(self.folder)}


@contextmanager
def temporary_workspace(names: Iterable[str] = ()) -> Iterator[Workspace]:
    """A workspace with these photos of scikit-image, or with all of them."""
    with tempfile.TemporaryDirectory(prefix="imgsearch-") as name:
        folder = Path(name)
        if names:
            (folder / "photos").mkdir()
            for photo in names:
                shutil.copy(Path(photos(), photo), folder / "photos")
        else:
            shutil.copytree(photos(), folder / "photos")
        shutil.copytree(Path("demo/model").absolute(), folder / "model")
        yield Workspace(folder)


def _wait_until_ready() -> None:
    while True:
        try:
            if httpx.get(f"{URL}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
