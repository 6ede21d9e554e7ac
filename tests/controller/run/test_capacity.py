from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controller.jobs.state import JobState, Phase, Stage
from controller.run.capacity import COUNT_SECONDS, Capacity
from tests.controller.conftest import Clock
from tests.controller.states import job

WAITS = {"0/2 nodes are available: 2 Insufficient nvidia.com/gpu.": 1}


def embedding(**fields: Any) -> JobState:
    return job(Stage.EMBED, Phase.ACTIVE, **{"completions": 20, "parallelism": 2, "active": 2, **fields})


def wider_after_pause(capacity: Capacity, clock: Clock, state: JobState) -> int | None:
    """What comes of two looks, with the time between that pods need to get onto their nodes."""
    assert capacity.wider(state) is None
    clock.now += COUNT_SECONDS
    return capacity.wider(state)


def test_what_becomes_free_is_taken_up_to_the_most(clock: Clock) -> None:
    free = [3, 0, 40]
    capacity = Capacity(2, most=8, free_pods=lambda: free.pop(0), clock=clock)
    assert wider_after_pause(capacity, clock, embedding()) == 5
    clock.now += COUNT_SECONDS
    assert capacity.wider(embedding(parallelism=5, active=5)) is None, "nothing is free"
    clock.now += COUNT_SECONDS
    assert capacity.wider(embedding(parallelism=5, active=5)) == 8
    clock.now += COUNT_SECONDS
    assert capacity.wider(embedding(parallelism=8, active=8)) is None, "that is the most"


def test_no_more_than_there_are_shards_left(clock: Clock) -> None:
    capacity = Capacity(2, most=8, free_pods=lambda: 9, clock=clock)
    state = embedding(completions=6, succeeded=frozenset({0, 1}), failed=frozenset({5}))
    assert wider_after_pause(capacity, clock, state) == 3


def test_gpus_are_counted_now_and_then_only(clock: Clock) -> None:
    times = []

    def count_free_gpus() -> int:
        times.append(clock.now)
        return 0

    capacity = Capacity(2, most=8, free_pods=count_free_gpus, clock=clock)
    for _ in range(100):
        clock.now += 1.0
        capacity.wider(embedding())
    assert len(times) == 3


def test_a_job_with_pods_that_do_not_run_yet_gets_no_more(clock: Clock) -> None:
    capacity = Capacity(2, most=8, free_pods=lambda: 9, clock=clock)
    assert wider_after_pause(capacity, clock, embedding(active=1)) is None
    assert wider_after_pause(capacity, clock, embedding(waiting=WAITS)) is None


def test_a_job_in_a_queue_stays_as_it_began(clock: Clock) -> None:
    """Kueue stops the pods of an admitted Job whose parallelism changes. It may itself have put the Job there."""
    capacity = Capacity(2, most=8, free_pods=lambda: 9, clock=clock)
    assert wider_after_pause(capacity, clock, embedding(queue="gpus")) is None
    assert wider_after_pause(capacity, clock, embedding()) == 8


def test_without_a_most_it_stays_as_it_began(clock: Clock) -> None:
    assert wider_after_pause(Capacity(2, free_pods=lambda: 9, clock=clock), clock, embedding()) is None


def test_the_wait_ends_with_the_reason() -> None:
    waiting_state = embedding(waiting=WAITS, waiting_since="2026-01-01T00:00:00Z")

    def given_up(minute: int, wait_seconds: float | None, state: JobState = waiting_state) -> str | None:
        capacity = Capacity(2, wait_seconds=wait_seconds, now=lambda: datetime(2026, 1, 1, 0, minute, tzinfo=UTC))
        return capacity.given_up(state)

    assert given_up(9, 600) is None
    reason = given_up(10, 600)
    assert reason is not None
    assert "600 s" in reason
    assert "(0/2 nodes are available: 2 Insufficient nvidia.com/gpu.)" in reason
    assert given_up(59, None) is None
    assert given_up(59, 600, embedding(waiting=WAITS)) is None, "one of its pods has a node"
