"""The places for fetches, which clients share: no client can take all of them, however many images it asks for."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

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


class Place:
    """The place of one fetch."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._work: asyncio.Future[Any] | None = None

    def keep_until(self, work: asyncio.Future[Any]) -> None:
        """Keeps the place until this work has ended, even if its fetch ends before: for work that nothing can stop. A
        fetch does one such work at a time."""
        self._work = work

    def leave(self) -> None:
        """Gives the place back, at the end of the work at the earliest."""
        if self._work is None or self._work.done():
            self._release()
        else:
            self._work.add_done_callback(lambda _: self._release())


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
    async def place(self, client: str, *, deadline: float) -> AsyncIterator[Place]:
        """Waits for a place, and holds it until the context and the work of `Place.keep_until` have ended. `deadline`:
        on the event loop's clock, in seconds.

        Raises Problem 429 where the client has too many entries, and where no place is free before the deadline."""
        if self._held[client] + len(self._waiting.get(client, ())) >= self._client_entries:
            raise Problem(
                429,
                f"image_url: {self._client_entries} images of this client are being fetched, the most for one client; "
                "try again in a moment",
                headers=RETRY,
            )
        with ExitStack() as entry:
            entry.enter_context(self._metrics.fetch_queue.track_inprogress())
            await self._take(client, deadline)
            entry.callback(self._release, client)
            place = Place(entry.pop_all().close)
        try:
            yield place
        finally:
            place.leave()

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
