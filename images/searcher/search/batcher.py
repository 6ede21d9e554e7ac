"""A queue that batches: inputs that arrive while a function is busy enter its next call together."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from searcher.search.threads import Pool

Input = TypeVar("Input")
Output = TypeVar("Output")


class BatchQueue(Generic[Input, Output]):
    """Calls a function of many inputs for callers that have one input each.

    Inputs that arrive while the pool is busy share the next call. Equal inputs share one output. An input leaves the
    queue when all its callers are cancelled. A queue lives on one event loop and has nothing to close."""

    def __init__(self, pool: Pool, call: Callable[[list[Input]], Sequence[Output]], *, max_batch: int) -> None:
        """`call` gets up to `max_batch` inputs and returns their outputs in the same order. It runs in the pool, and
        takes turns with the other queues of this pool."""
        self._pool = pool
        self._call = call
        self._max_batch = max_batch
        self._waiting: OrderedDict[Input, list[asyncio.Future[Output]]] = OrderedDict()
        """The callers of each input that waits, the oldest input first."""
        self._running: dict[Input, list[asyncio.Future[Output]]] = {}
        """The callers of each input that is in a call. Empty where all of them are cancelled."""
        self._workers: set[asyncio.Task[None]] = set()
        """References to the tasks: the event loop itself holds only weak ones."""
        self._active = 0
        """The workers that look for inputs once more before they end."""
        self._busy = 0
        """The calls that run now."""

    @property
    def idle(self) -> bool:
        """Whether no caller waits for an output."""
        return not self._waiting and not any(self._running.values())

    async def submit(self, item: Input) -> Output:
        """Returns the output for this input. An error of the call is raised for every input in it."""
        future: asyncio.Future[Output] = asyncio.get_running_loop().create_future()
        futures = self._running.get(item, self._waiting.get(item))
        if futures is None:
            futures = self._waiting[item] = []
            self._start_worker()
        futures.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            futures.remove(future)
            if not futures and self._waiting.get(item) is futures:
                del self._waiting[item]
            raise

    def _start_worker(self) -> None:
        if self._active < self._pool.size:
            self._active += 1
            # An empty context: a call serves many requests, so its log lines carry the id of none.
            worker = asyncio.create_task(self._work(), context=Context())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        try:
            while self._waiting:
                # The batch is chosen when the turn comes: until then, more inputs may arrive, and others may leave.
                async with self._pool.turn:
                    if batch := self._next_batch():
                        self._busy += 1
                        await self._run(batch)
                        self._busy -= 1
        finally:
            # In the same step as the last look: an input that arrives after it gets a new worker.
            self._active -= 1

    def _next_batch(self) -> list[Input]:
        """Takes the oldest inputs, and leaves a share for each call that can run beside this one."""
        share = math.ceil(len(self._waiting) / (self._pool.size - self._busy))
        batch: list[Input] = []
        while self._waiting and len(batch) < min(share, self._max_batch):
            item, futures = self._waiting.popitem(last=False)
            if not all(future.cancelled() for future in futures):  # callers that are about to leave
                self._running[item] = futures
                batch.append(item)
        return batch

    async def _run(self, batch: list[Input]) -> None:
        try:
            outputs = dict(zip(batch, await self._pool(self._call, batch), strict=True))
        except Exception as error:  # the callers wait for it, whatever it is
            for item in batch:
                for future in self._take_futures(item):
                    future.set_exception(error)
        else:
            for item, output in outputs.items():
                for future in self._take_futures(item):
                    future.set_result(output)

    def _take_futures(self, item: Input) -> list[asyncio.Future[Output]]:
        return [future for future in self._running.pop(item) if not future.done()]
