"""Completion indexes as text, in the format of a Job's status: `0-2,5`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def parse_indexes(text: str) -> Iterator[int]:
    """`0-2,5` → 0, 1, 2, 5."""
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


def format_indexes(indexes: Iterable[int]) -> str:
    """0, 1, 2, 5 → `0-2,5`."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in spans)
