"""The connections of clients: what is cancelled when a client hangs up, and what the server closes at its shutdown."""

from __future__ import annotations

import asyncio
import threading

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_CLOSED_REQUEST = 499
"""The status of a request whose client hung up before its response, for /metrics. It is nginx's; nobody receives it."""


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


class HangUpCancellation:
    """Middleware. Cancels a request whose client hangs up: its place in every queue, and its work, are for others.

    The framework itself runs such a request to its end. The response that outer middlewares see has the status 499."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.take_cancellation():
                raise
        finally:
            exchange.close()
        if exchange.unanswered:
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)


class _Exchange:
    """A request and its response. It watches for the end of the connection once the body has arrived; before that, the
    application reads the body and learns of it there."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To be made in the task that runs the application."""
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._hung_up = asyncio.Event()
        self._cancelling = False
        """The task was cancelled from here, and the cancellation was not yet taken."""
        self._started = False
        self._complete = False
        # A body that has not arrived is read only when the application asks for it: a client with `Expect:
        # 100-continue` sends it then. A request without a body is watched from its start.
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )
        self._empty_body_due = not has_body
        self._watcher = None if has_body else asyncio.create_task(self._watch())

    @property
    def unanswered(self) -> bool:
        """Whether the client hung up before the response began."""
        return self._hung_up.is_set() and not self._started

    async def receive(self) -> Message:
        """The ASGI `receive` of the application."""
        if self._empty_body_due:
            self._empty_body_due = False
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._watcher is not None:  # the body is complete
            await self._hung_up.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._hung_up.set()
        elif not message.get("more_body", False):
            self._watcher = asyncio.create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        """The ASGI `send` of the application."""
        if self.unanswered:
            return
        self._started = True
        # Before it is sent: then the server reports a complete response as the end of the connection, too.
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def take_cancellation(self) -> bool:
        """Whether the task was cancelled from here, and by nobody else; it then goes on."""
        assert self._task
        if self._cancelling:
            self._cancelling = False
            return self._task.uncancel() == 0
        return False

    def close(self) -> None:
        """Ends the watch."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # the empty message that ends an empty body
        self._hung_up.set()
        if not self._complete:
            assert self._task
            self._cancelling = self._task.cancel()
