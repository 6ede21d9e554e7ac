"""The pools in which blocking calls run, so that the event loop never waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """At most `size` calls at a time; others wait their turn."""

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self.turn = asyncio.Semaphore(size)
        """First come, first served: for those who settle what they call it with only when it is free."""
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def __call__(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of the call, made in one of the threads, whose log lines carry what the caller's do."""
        bound = partial(copy_context().run, call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, bound)

    def close(self) -> None:
        """What has not begun is dropped; what runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Threads:
    """One pool for each kind of waiting, so that a slow kind does not hold up the others."""

    def __init__(self) -> None:
        # One, whatever the number of models: a call uses all cores, and two at once are slower than in turn.
        self.model = Pool("model", 1)
        self.load = Pool("load", 1)
        self.store = Pool("store", 8)
        # Few, so that searches that come together share calls; a store of its own has more than one core for them.
        self.search = Pool("search", 2)
        # Few, since each may hold a picture of `max_pixels` in memory.
        self.decode = Pool("decode", 2)
        self.files = Pool("files", 8)

    def close(self) -> None:
        for pool in (self.model, self.load, self.store, self.search, self.decode, self.files):
            pool.close()
