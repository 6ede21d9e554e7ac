"""Turns exceptions without a handler into error responses (500)."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searcher.http import problems

log = logging.getLogger(__name__)


class UnhandledErrors:
    """Middleware. Starlette's own is outside of all other middlewares, so its response has no CORS headers and no
    request id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def observe(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, observe)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            log.exception("%s %s", scope["method"], scope["path"])
            await problems.response(problems.problem_of_error(error))(scope, receive, send)
