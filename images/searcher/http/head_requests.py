"""Serves HEAD requests for every path that serves GET."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadRequests:
    """Middleware. Passes HEAD on as GET: RFC 9110, 9.3.2 requires the same headers. The server drops the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy, because the server reads the method from its own scope. Other middlewares read what the app adds.
        get_scope = {**scope, "method": "GET"}
        try:
            await self._app(get_scope, receive, send)
        finally:
            scope.update({**get_scope, "method": "HEAD"})
