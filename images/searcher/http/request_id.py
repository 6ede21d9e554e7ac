"""What every answer has, whatever it is of: the id of its request, and how long it took; and HEAD for every GET."""

from __future__ import annotations

import re
import secrets
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch import logs
from searcher.http.files import server_timing

REQUEST_ID = "X-Request-ID"


class Envelope:
    """Each answer tells the request's id, the client's own where it gave one, and its problem and the log lines that
    are written meanwhile tell it too. `Server-Timing` gets the time to the answer's first byte as `total`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        id = request_id(Headers(scope=scope).get(REQUEST_ID, ""))

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = id
                total = server_timing({"total": round((perf_counter() - start) * 1000, 3)})
                told = headers.get("Server-Timing")
                headers["Server-Timing"] = f"{told}, {total}" if told else total
            await send(message)

        token = logs.task_fields.set({"request_id": id})
        try:
            await self._app(scope, receive, signed)
        finally:
            logs.task_fields.reset(token)


def request_id(given: str) -> str:
    """The client's id where it can be shown as it is, else one of our own."""
    return given if re.fullmatch(r"[!-~]{1,128}", given) else secrets.token_hex(16)


class Heads:
    """Answers HEAD as GET: RFC 9110, 9.3.2 wants the same headers. The server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy: the server looks into its own to know that it was HEAD. What the others leave there, they find again.
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send)
        finally:
            scope.update({**inner, "method": "HEAD"})
