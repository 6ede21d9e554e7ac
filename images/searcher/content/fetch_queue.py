"""The places for fetches, which clients share: no client can take all of them, however many images it asks for."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from searcher.search.errors import RETRY_SECONDS, Problem
from searcher.search.metrics import Metrics

RETRY = {"Retry-After": str(RETRY_SECONDS)}


def busy() -> Problem:
    """The problem of an image that could not be fetched in time because of the others."""
    return Problem(
        429,
        "image_url: too many images are being fetched; try again in a moment, or send the image as `image`",
        headers=RETRY,
    )


class FetchQueue:
    """Gives a free place to the waiting client that holds the fewest places; among equals, clients take turns. It lives
    on one event loop and has nothing to close."""

    def __init__(self, places: int, *, client_places: int, client_entries: int, metrics: Metrics) -> None:
        """`client_places`: places that one client may hold. `client_entries`: fetches that one client may have in the
        queue, waiting ones and those with a place together."""
        self._places = places
        self._client_places = client_places
        self._client_entries = client_entries
        self._metrics = metrics
        self._held: Counter[str] = Counter()
        """Places by client."""
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """The waiting fetches by client, each list the oldest first. A client that gets a place moves to the end."""

    @asynccontextmanager
    async def place(self, client: str, *, deadline: float) -> AsyncIterator[None]:
        """Waits for a place, and holds it until the context ends. `deadline`: on the event loop's clock, in seconds.

        Raises Problem 429 where the client has too many entries, and where no place is free before the deadline."""
        if self._held[client] + len(self._waiting.get(client, ())) >= self._client_entries:
            raise Problem(
                429,
                f"image_url: {self._client_entries} images of this client are being fetched, the most for one client; "
                "try again in a moment",
                headers=RETRY,
            )
        with self._metrics.fetch_queue.track_inprogress():
            await self._take(client, deadline)
            try:
                yield
            finally:
                self._release(client)

    async def _take(self, client: str, deadline: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(future)
        self._fill()
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            self._leave(client, future)
            raise busy() from None
        except asyncio.CancelledError:
            self._leave(client, future)
            raise

    def _leave(self, client: str, future: asyncio.Future[None]) -> None:
        if not future.cancelled():  # it got its place in the same moment
            self._release(client)
            return
        # A cancelled future stays in the queue until its task runs. `_fill` may drop it before.
        with suppress(KeyError, ValueError):
            self._waiting[client].remove(future)
            if not self._waiting[client]:
                del self._waiting[client]

    def _release(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._fill()

    def _fill(self) -> None:
        while self._held.total() < self._places:
            waiting = [client for client in self._waiting if self._held[client] < self._client_places]
            if not waiting:
                return
            client = min(waiting, key=lambda client: self._held[client])
            future = self._waiting[client].popleft()
            if not future.cancelled():
                self._held[client] += 1
                future.set_result(None)
                self._waiting.move_to_end(client)
            if not self._waiting[client]:
                del self._waiting[client]
