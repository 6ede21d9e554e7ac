"""Converts exceptions that no handler took into error responses."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searcher.http import problems

logger = logging.getLogger(__name__)


class Surprises:
    """Answers what no handler took. Starlette would do so outside of every other part, and such an answer would be
    without CORS headers and its request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            logger.exception("%s %s", scope["method"], scope["path"])
            await problems.response(problems.of_error(error))(scope, receive, send)
