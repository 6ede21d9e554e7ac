"""The rate limit of each client, the first of two places that decide a 429.

The other is search/admission.py: it refuses requests of any client while the queue of the model is full."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.errors import UsageError
from searcher.http import problems
from searcher.http.clients import CHARGE, client_name
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

    Only POST requests count, because only they use the model: a page of results loads dozens of images. Each query of a
    request counts: the application calls `Client.charge` with their number once it has read the body. A request that
    fails before that counts as one, and so does one with more queries than remain. One that is refused before its body
    is read does not count. The window slides, and is of this process alone
    (https://limits.readthedocs.io/en/stable/strategies.html). The headers follow
    draft-ietf-httpapi-ratelimit-headers-10."""

    def __init__(self, app: ASGIApp, *, rate: RateLimitItem, exempt: Collection[str]) -> None:
        """`exempt`: paths that do not count."""
        self._app = app
        self._rate = rate
        self._exempt = exempt
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._policy = f'"search";q={rate.amount};w={rate.get_expiry()}'
        self._uncounted: Counter[str] = Counter()
        """By client: requests that were let in, and whose queries are not counted yet. Each takes one of the remaining
        queries, so that a client has no more bodies read than its rate allows."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or route_path(scope) in self._exempt:
            await self._app(scope, receive, send)
            return
        client = client_name(scope)
        counted = True

        def count(queries: int) -> bool:
            nonlocal counted
            if not counted:
                counted = True
                self._uncounted[client] -= 1
                if not self._uncounted[client]:
                    del self._uncounted[client]
            return self._limiter.hit(self._rate, client, cost=queries)

        def charge(queries: int) -> None:
            if queries > self._rate.amount:
                raise Problem(
                    422,
                    f"this request has {queries} queries, more than the rate limit of {self._rate} allows; send fewer "
                    "queries in one request",
                )
            if not count(queries):
                count(1)  # its body has been read
                raise self._exceeded(client)

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                if not counted:
                    count(1)
                remaining, seconds = self._window(client)
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = self._policy
                headers["RateLimit"] = f'"search";r={remaining};t={seconds}'
            await send(message)

        if not self._limiter.test(self._rate, client, cost=self._uncounted[client] + 1):
            await problems.response(self._exceeded(client))(scope, receive, send_with_limit)
            return
        counted = False
        self._uncounted[client] += 1
        scope[CHARGE] = charge
        try:
            await self._app(scope, receive, send_with_limit)
        finally:
            if not counted:  # the client hung up
                count(1)

    def _window(self, client: str) -> tuple[int, int]:
        """The number of queries that remain, and the seconds until there are more."""
        reset, remaining = self._limiter.get_window_stats(self._rate, client)
        return remaining, max(1, math.ceil(reset - time.time()))

    def _exceeded(self, client: str) -> Problem:
        _, seconds = self._window(client)
        detail = f"rate limit exceeded: {self._rate}; try again in {seconds} s"
        return Problem(429, detail, headers={"Retry-After": str(seconds)})
