from __future__ import annotations

import pytest

from controller.jobs.indexes import format_indexes, parse_indexes


@pytest.mark.parametrize("text", ["", "0", "0-2", "0-2,5", "1,3,5-7"])
def test_completion_indexes_are_read_and_written_as_kubernetes_does(text: str) -> None:
    assert format_indexes(set(parse_indexes(text))) == text


def test_ranges_are_whole() -> None:
    assert list(parse_indexes("0-2,5")) == [0, 1, 2, 5]
