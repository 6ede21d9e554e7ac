"""Closes the connections of clients while the server shuts down."""

from __future__ import annotations

import threading

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ConnectionDraining:
    """Middleware. Once `stopping` is set, each response closes its connection, so that clients connect to another
    server."""

    def __init__(self, app: ASGIApp, *, stopping: threading.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stopping.is_set():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_closing)
