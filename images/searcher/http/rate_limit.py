"""The rate limit: so many searches of one client in so much time."""

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
from searcher.http import api_keys, problems
from searcher.search.errors import Problem


def rate(text: str) -> RateLimitItem:
    """The rate that a setting such as `20/second` names; raises UsageError."""
    try:
        item = parse(text)
    except ValueError:
        item = None
    if item is None or item.amount < 1:
        raise UsageError(
            f"IMGSEARCH_SEARCH_RATE_LIMIT={text!r} is no rate; write 20/second, 600/minute or 100/5 minute"
        )
    return item


class RateLimit:
    """Answers 429 to a client that posts more than the rate, by the name of its key, or by its address without keys.

    Only what is posted counts, which is all that costs the model's time: a page of results has dozens of pictures. A
    sliding window, in this process alone (https://limits.readthedocs.io/en/stable/strategies.html). The headers are
    those of draft-ietf-httpapi-ratelimit-headers-10."""

    def __init__(self, app: ASGIApp, *, rate: RateLimitItem, free: Collection[str]) -> None:
        """`free`: the paths that do not count."""
        self._app = app
        self._rate = rate
        self._free = free
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._policy = f'"search";q={rate.amount};w={rate.get_expiry()}'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] in self._free:
            await self._app(scope, receive, send)
            return
        client = scope.get(api_keys.NAME) or (scope.get("client") or ("",))[0]
        allowed = self._limiter.hit(self._rate, client)
        reset, remaining = self._limiter.get_window_stats(self._rate, client)
        seconds = max(1, math.ceil(reset - time.time()))

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = self._policy
                headers["RateLimit"] = f'"search";r={remaining};t={seconds}'
            await send(message)

        if allowed:
            await self._app(scope, receive, telling)
            return
        sentence = f"more than {self._rate} of this client: wait {seconds} s"
        await problems.response(Problem(429, sentence, headers={"Retry-After": str(seconds)}))(scope, receive, telling)
