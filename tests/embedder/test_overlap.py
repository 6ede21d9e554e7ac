from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedder.overlap import batched, ordered_map


def ignore(length: int) -> None:
    pass


def test_results_come_in_the_order_of_the_values_however_long_each_takes() -> None:
    second_done = threading.Event()

    def work(value: int) -> int:
        if value == 0:
            assert second_done.wait(10)
        if value == 1:
            second_done.set()
        return value * 10

    with ThreadPoolExecutor(4) as pool:
        assert list(ordered_map(pool, work, range(6), window=4, queued=ignore)) == [0, 10, 20, 30, 40, 50]


def test_no_more_values_are_taken_than_the_window_holds() -> None:
    counts = []

    def values() -> Iterator[int]:
        for value in range(100):
            counts.append(value)
            yield value

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda value: value, values(), window=5, queued=ignore)
        next(results)
        assert len(counts) == 5
        next(results)
        assert len(counts) == 6


def test_an_error_of_the_work_is_raised_in_its_place() -> None:
    def work(value: int) -> int:
        if value == 2:
            raise OSError("broken")
        return value

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, work, range(5), window=3, queued=ignore)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(OSError, match="broken"):
            next(results)


def test_batches_follow_a_size_that_shrinks_meanwhile() -> None:
    sizes = iter([4, 4, 4, 4, 2, 2, 2, 2, 2, 2])
    assert list(batched(range(7), lambda: next(sizes))) == [[0, 1, 2, 3], [4, 5], [6]]
