"""A map over threads that keeps the order, so that reading, decoding and computing overlap."""

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
    """`map` in `pool`: the results are in the order of `values`, and at most `window` values are in work at a time.

    The next value is read only when a result is taken, so chained maps need bounded memory. `queued` is called with 1
    when a result is ready, and with -1 when it is taken: the sum is the length of the queue. An exception of `work` is
    raised in place of the result."""
    pending: deque[Future[Out]] = deque()

    def take() -> Out:
        result = pending.popleft().result()
        queued(-1)
        return result

    for value in values:
        future = pool.submit(work, value)
        future.add_done_callback(lambda _: queued(1))
        pending.append(future)
        if len(pending) >= window:
            yield take()
    while pending:
        yield take()


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
