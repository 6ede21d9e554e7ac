"""Limits the size of request bodies (413)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searcher.http import problems
from searcher.http.root_path import route_path
from searcher.search.errors import Problem


class BodyLimit:
    """Middleware. Refuses a larger body: by its Content-Length at once, else as soon as too many bytes arrived."""

    def __init__(self, app: ASGIApp, *, limit: int, path_limits: Mapping[str, int]) -> None:
        """`limit`: in bytes. `path_limits`: lower limits of some paths."""
        self._app = app
        self._limit = limit
        self._path_limits = path_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = min(self._limit, self._path_limits.get(route_path(scope), self._limit))
        # Closes the connection, because the client is still sending the rest of the body.
        too_large = Problem(
            413, f"the body is larger than {limit:,} bytes; send a smaller one", headers={"Connection": "close"}
        )
        if _content_length(scope) > limit:
            await problems.response(too_large)(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # FastAPI passes an HTTPException on, and reports every other exception as a parsing error.
                raise HTTPException(413, too_large.detail, headers=dict(too_large.headers or {}))
            return message

        await self._app(scope, receive_limited, send)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
