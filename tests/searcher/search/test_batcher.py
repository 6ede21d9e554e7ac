"""Inputs that arrive while a call runs share the next call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from searcher.search.batcher import BatchQueue
from searcher.search.threads import Pool
from tests.searcher.library import TIMEOUT, wait_for_event

pytestmark = pytest.mark.anyio


class HeldCall:
    """A call that waits until it may finish. It returns its inputs in upper case."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        """The inputs of the finished calls."""
        self.started, self.may_finish = threading.Event(), threading.Event()

    def __call__(self, inputs: list[str]) -> list[str]:
        self.started.set()
        assert self.may_finish.wait(TIMEOUT)
        self.calls.append(inputs)
        return [item.upper() for item in inputs]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """One thread."""
    pool = Pool("test", 1)
    yield pool
    pool.close()


async def test_queues_of_one_pool_take_turns_and_a_batch_is_chosen_when_its_call_begins(pool: Pool) -> None:
    call = HeldCall()
    texts, images = BatchQueue(pool, call, max_batch=2), BatchQueue(pool, call, max_batch=2)
    async with asyncio.TaskGroup() as tasks:
        submitted = [tasks.create_task(texts.submit("t0")), tasks.create_task(images.submit("i0"))]
        await wait_for_event(call.started)
        submitted += [tasks.create_task(texts.submit(f"t{n}")) for n in range(1, 6)]
        submitted += [tasks.create_task(images.submit(f"i{n}")) for n in range(1, 4)]
        await asyncio.sleep(0)
        call.may_finish.set()
    assert call.calls == [["t0"], ["i0", "i1"], ["t1", "t2"], ["i2", "i3"], ["t3", "t4"], ["t5"]]
    assert [task.result() for task in submitted] == ["T0", "I0", "T1", "T2", "T3", "T4", "T5", "I1", "I2", "I3"]
    assert texts.idle
    assert images.idle


async def test_an_input_that_arrives_as_the_last_call_ends_is_processed(pool: Pool) -> None:
    queue = BatchQueue(pool, lambda inputs: [item.upper() for item in inputs], max_batch=2)
    async with asyncio.timeout(TIMEOUT):
        for item in ("a", "b", "c"):
            assert await queue.submit(item) == item.upper()


async def test_too_few_outputs_are_an_error(pool: Pool) -> None:
    queue: BatchQueue[str, str] = BatchQueue(pool, lambda inputs: [], max_batch=2)
    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(ValueError, match="shorter"):
            await queue.submit("a")


async def test_an_input_leaves_with_the_last_of_its_callers(pool: Pool) -> None:
    call = HeldCall()
    queue = BatchQueue(pool, call, max_batch=8)
    running = asyncio.create_task(queue.submit("a"))
    await wait_for_event(call.started)
    waiting = {name: asyncio.create_task(queue.submit(name[0])) for name in ("b", "c1", "c2", "d", "e")}
    await asyncio.sleep(0)
    for name in ("b", "c1", "d"):
        waiting[name].cancel()
    running.cancel()
    await asyncio.wait([running, waiting["b"], waiting["c1"], waiting["d"]])
    assert not queue.idle
    again = asyncio.create_task(queue.submit("a"))  # the call of the one that was cancelled is for it, too
    await asyncio.sleep(0)
    call.may_finish.set()
    assert [await again, await waiting["c2"], await waiting["e"]] == ["A", "C", "E"]
    assert call.calls == [["a"], ["c", "e"]]
    assert queue.idle


async def test_a_queue_whose_callers_are_all_cancelled_is_idle_although_its_call_runs(pool: Pool) -> None:
    call = HeldCall()
    queue = BatchQueue(pool, call, max_batch=8)
    tasks = [asyncio.create_task(queue.submit("a"))]
    await wait_for_event(call.started)
    tasks.append(asyncio.create_task(queue.submit("b")))
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert queue.idle
    call.may_finish.set()
    assert await queue.submit("c") == "C"
