"""The id and the duration of each request, in the headers of its response and in its log lines."""

from __future__ import annotations

import re
import secrets
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch import logs
from searcher.http.files import server_timing

REQUEST_ID = "X-Request-ID"


class RequestId:
    """Middleware. Adds the request's id to the response, to its problem and to the log lines of the request, and the
    time to the first byte as `total` to `Server-Timing`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        id = request_id(Headers(scope=scope).get(REQUEST_ID, ""))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = id
                total = server_timing({"total": round((perf_counter() - start) * 1000, 3)})
                steps = headers.get("Server-Timing")
                headers["Server-Timing"] = f"{steps}, {total}" if steps else total
            await send(message)

        token = logs.task_fields.set({"request_id": id})
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            logs.task_fields.reset(token)


def request_id(header: str) -> str:
    """The client's id if it has up to 128 visible ASCII characters, else a new one."""
    return header if re.fullmatch(r"[!-~]{1,128}", header) else secrets.token_hex(16)
