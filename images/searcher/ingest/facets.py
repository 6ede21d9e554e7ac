"""Which values the fields of the metadata have, and how often: what a page makes its filters from. No I/O here."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from imgsearch.runs.documents import Facet, FacetValue
from imgsearch.stores.records import Scalar

FIELDS = 200
"""More fields than these are not looked at: names that are different in every image would fill the memory."""
DISTINCT = 10_000
"""A field with more values is nothing to choose from; counting it ends there, and so does its memory."""
VALUES = 200
"""How many values are written."""
LONGEST = 200
"""Characters. A field with a longer text is prose."""


class FacetCounts:
    """Counts the values of every field, of one image after the other, in bounded memory."""

    def __init__(self) -> None:
        self._fields: dict[str, _Field] = {}

    def add(self, images: Iterable[Mapping[str, Any]]) -> None:
        """The metadata of each image as the store has it; what begins with `_` is ours and does not count."""
        for metadata in images:
            for name, value in metadata.items():
                if name[0:1] == "_":
                    continue
                field = self._fields.get(name)
                if field is None:
                    if len(self._fields) == FIELDS:
                        continue
                    field = self._fields[name] = _Field()
                field.add(value)

    def most_frequent(self) -> list[Facet]:
        """What was counted, by field."""
        return [field.facet(name) for name, field in sorted(self._fields.items())]


class _Field:
    def __init__(self) -> None:
        self._images = 0
        self._kinds: set[type] = set()
        self._counts: Counter[tuple[bool, Scalar]] | None = Counter()
        """By whether it is a boolean, since to Python True is 1; None: there are too many."""
        self._min: float | None = None
        self._max: float | None = None

    def add(self, value: Scalar | list[Scalar]) -> None:
        kind = type(value)
        self._images += 1
        self._kinds.add(kind)
        if isinstance(value, list):
            self._count({(isinstance(item, bool), item) for item in value})
            return
        if kind is int or kind is float:
            assert isinstance(value, (int, float))
            if self._min is None or value < self._min:
                self._min = value
            if self._max is None or value > self._max:
                self._max = value
        self._count([(kind is bool, value)])

    def _count(self, values: Iterable[tuple[bool, Scalar]]) -> None:
        """Each value once for an image, however often its list has it: so many does a filter find."""
        if self._counts is None:
            return
        for value in values:
            self._counts[value] += 1
            if len(self._counts) > DISTINCT or (isinstance(value[1], str) and len(value[1]) > LONGEST):
                self._counts = None
                return

    def facet(self, name: str) -> Facet:
        type = self._type()
        numbers = type == "number"
        return Facet(
            field=name,
            type=type,
            images=self._images,
            distinct=None if self._counts is None else len(self._counts),
            values=[] if self._counts is None else _first(self._counts),
            min=self._min if numbers else None,
            max=self._max if numbers else None,
        )

    def _type(self) -> Any:
        """Text where the images do not agree."""
        if list in self._kinds:
            return "list"
        if self._kinds == {bool}:
            return "bool"
        return "number" if self._kinds <= {int, float} else "text"


def _first(counts: Counter[tuple[bool, Scalar]]) -> list[FacetValue]:
    """Of equally frequent ones the first in the order of their text, so that two ingests write the same."""
    kept = heapq.nsmallest(VALUES, counts.items(), key=lambda one: (-one[1], str(one[0][1])))
    return [FacetValue(value=value, count=count) for (_, value), count in kept]
