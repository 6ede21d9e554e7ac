"""The rate limit of each client, the first of two places that decide a 429.

The other is search/admission.py: it refuses requests of any client while the queue of the model is full."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.errors import UsageError
from searcher.http import problems
from searcher.http.api_keys import KEY_NAME
from searcher.http.root_path import route_path
from searcher.search.errors import Problem


def parse_rate(text: str) -> RateLimitItem:
    """Parses a rate such as `20/second`. Raises UsageError."""
    try:
        rate = parse(text)
    except ValueError:
        rate = None
    if rate is None or rate.amount < 1:
        raise UsageError(
            f"IMGSEARCH_SEARCH_RATE_LIMIT: invalid rate {text!r}; write 20/second, 600/minute or 100/5 minute"
        )
    return rate


class RateLimit:
    """Middleware. Refuses with 429 the POST requests of a client above the rate. A client is the name of its API key,
    or its address without API keys.

    Only POST requests count, because only they use the model: a page of results loads dozens of images. The window
    slides, and is of this process alone (https://limits.readthedocs.io/en/stable/strategies.html). The headers follow
    draft-ietf-httpapi-ratelimit-headers-10."""

    def __init__(self, app: ASGIApp, *, rate: RateLimitItem, exempt: Collection[str]) -> None:
        """`exempt`: paths that do not count."""
        self._app = app
        self._rate = rate
        self._exempt = exempt
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._policy = f'"search";q={rate.amount};w={rate.get_expiry()}'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or route_path(scope) in self._exempt:
            await self._app(scope, receive, send)
            return
        client = scope.get(KEY_NAME) or (scope.get("client") or ("",))[0]
        allowed = self._limiter.hit(self._rate, client)
        reset, remaining = self._limiter.get_window_stats(self._rate, client)
        seconds = max(1, math.ceil(reset - time.time()))

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = self._policy
                headers["RateLimit"] = f'"search";r={remaining};t={seconds}'
            await send(message)

        if allowed:
            await self._app(scope, receive, send_with_limit)
            return
        detail = f"rate limit exceeded: {self._rate}; try again in {seconds} s"
        refused = problems.response(Problem(429, detail, headers={"Retry-After": str(seconds)}))
        await refused(scope, receive, send_with_limit)
