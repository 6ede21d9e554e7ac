"""The end of a server to which others send requests: it says that it leaves, lingers until they know, and then goes."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import uvicorn


class LeavingServer(uvicorn.Server):
    """uvicorn stops to listen at the first signal. In a cluster, whoever sends requests hears of the end only then, and
    those that are on their way would be refused; so SIGTERM sets `stopping`, and the end comes `linger` seconds later.
    A second signal, or Ctrl-C, ends it at once."""

    def __init__(self, config: uvicorn.Config, *, stopping: threading.Event, linger: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._linger = linger
        self._end = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._linger and not self._stopping.is_set():
            self._end = time.monotonic() + self._linger
        else:
            super().handle_exit(sig, frame)
        self._stopping.set()

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._end:
            super().handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)
