"""Counts and times requests for /metrics."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searcher.http.api_keys import KEY_NAME
from searcher.search.metrics import Metrics

METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class RequestMetrics:
    """Middleware. Labels are routes, never paths: the number of paths is unlimited."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # if no response starts

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = perf_counter()
        try:
            await self._app(scope, receive, observe)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            self._metrics.requests.labels(route, method, status).inc()
            if KEY_NAME in scope:
                self._metrics.key_requests.labels(scope[KEY_NAME]).inc()
            self._metrics.request_seconds.labels(route).observe(perf_counter() - start)
