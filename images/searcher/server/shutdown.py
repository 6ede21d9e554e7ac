"""Graceful shutdown: the server keeps serving until load balancers send no more requests, and then drains."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import uvicorn


class DrainingServer(uvicorn.Server):
    """A uvicorn server that shuts down `linger` seconds after SIGTERM.

    uvicorn itself closes its socket at the first signal. In a cluster, load balancers learn of the shutdown only then,
    so requests on their way would be refused. Here SIGTERM sets `stopping`, and the shutdown begins `linger` seconds
    later. A second signal, or Ctrl-C, begins it at once."""

    def __init__(self, config: uvicorn.Config, *, stopping: threading.Event, linger: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._linger = linger
        self._deadline = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._linger and not self._stopping.is_set():
            self._deadline = time.monotonic() + self._linger
        else:
            super().handle_exit(sig, frame)
        self._stopping.set()

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._deadline:
            super().handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)
