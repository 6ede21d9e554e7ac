"""Thread pools for blocking calls, so that they do not block the event loop; and coroutines side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Runs up to `size` calls at a time; further calls wait."""

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self.turn = asyncio.Semaphore(size)
        """First come, first served. For callers that choose the arguments of their call when a thread is free."""
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def __call__(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the call in a thread. Its log lines carry the fields of the caller's, such as the request's id."""
        bound = partial(copy_context().run, call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, bound)

    def close(self) -> None:
        """Drops the calls that have not started. Does not wait for those that run."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Threads:
    """One pool for each kind of blocking call, so that a slow kind does not delay the others."""

    def __init__(self) -> None:
        # One, for any number of models: a call uses all cores, and two at once are slower than one after the other.
        self.model = Pool("model", 1)
        self.load = Pool("load", 1)
        # Of its own: a table may be downloaded for minutes.
        self.tables = Pool("tables", 1)
        # Of its own: a check may take seconds.
        self.checks = Pool("checks", 1)
        self.store = Pool("store", 8)
        # Few, so that searches share calls; a Chroma server has more than one core for them.
        self.search = Pool("search", 2)
        # Few: each may hold an image of `max_pixels` in memory.
        self.decode = Pool("decode", 2)
        self.files = Pool("files", 8)

    def close(self) -> None:
        for pool in (self.model, self.load, self.tables, self.checks, self.store, self.search, self.decode, self.files):
            pool.close()


async def gather(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first error is raised, and cancels the others."""
    if len(coroutines) == 1:  # the most frequent case, which needs no task
        return [await coroutines[0]]
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
