"""Stages that work at the same time and keep the order, so that reading, decoding and computing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ordered_map(
    pool: Executor,
    work: Callable[[In], Out],
    values: Iterable[In],
    *,
    window: int,
    queued: Callable[[int], None],
) -> Iterator[Out]:
    """`map` in `pool`, with the results in the order of `values` and at most `window` of them in flight.

    It takes a value only when a result is taken: chained maps need bounded memory and never run ahead of the slowest.
    It calls `queued` with 1 when a result is ready and with -1 when it is taken; the sum is the queue's length.
    It raises an exception of `work` in place of the result."""
    flight: deque[Future[Out]] = deque()

    def taken() -> Out:
        result = flight.popleft().result()
        queued(-1)
        return result

    for value in values:
        future = pool.submit(work, value)
        future.add_done_callback(lambda _: queued(1))
        flight.append(future)
        if len(flight) >= window:
            yield taken()
    while flight:
        yield taken()


def batched(values: Iterable[In], size: Callable[[], int]) -> Iterator[list[In]]:
    """Lists of `size()` values, the last one shorter; `size` is called for each value."""
    batch: list[In] = []
    for value in values:
        batch.append(value)
        if len(batch) >= size():
            yield batch
            batch = []
    if batch:
        yield batch
