"""Facets: the values of the metadata's fields and their counts, from which the page makes its filters. No I/O."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from imgsearch.runs.documents import Facet, FacetValue
from imgsearch.stores.filters import Scalar

FIELDS = 200
"""Further fields are ignored: field names that differ in every image would fill the memory."""
DISTINCT = 10_000
"""A field with more values is not counted: nobody chooses from so many, and they would fill the memory."""
VALUES = 200
"""Values of a field in the file."""
MAX_CHARS = 200
"""A field with a longer text is prose, and is not counted."""


class FacetCounts:
    """Counts the values of all fields in bounded memory."""

    def __init__(self) -> None:
        self._fields: dict[str, _Field] = {}

    def add(self, images: Iterable[Mapping[str, Any]]) -> None:
        """Adds the metadata of some images, as the store has it."""
        for metadata in images:
            for name, value in metadata.items():
                field = self._fields.get(name)
                if field is None:
                    if len(self._fields) == FIELDS:
                        continue
                    field = self._fields[name] = _Field()
                field.add(value)

    def most_frequent(self) -> list[Facet]:
        """The facets by field, with their most frequent values."""
        return [field.facet(name) for name, field in sorted(self._fields.items())]


class _Field:
    def __init__(self) -> None:
        self._images = 0
        self._kinds: set[type] = set()
        self._counts: Counter[tuple[bool, Scalar]] | None = Counter()
        """The counts by (whether it is a boolean, value), because True == 1 in Python. None: too many values."""
        self._min: int | float | None = None
        self._max: int | float | None = None
        self._whole = True

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
            self._whole = self._whole and (isinstance(value, int) or value.is_integer())
        self._count([(kind is bool, value)])

    def _count(self, values: Iterable[tuple[bool, Scalar]]) -> None:
        """Counts a value once for an image, even if its list repeats it: a filter finds the image once."""
        if self._counts is None:
            return
        for value in values:
            self._counts[value] += 1
            if len(self._counts) > DISTINCT or (isinstance(value[1], str) and len(value[1]) > MAX_CHARS):
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
            whole=self._whole if numbers else None,
        )

    def _type(self) -> Any:
        """Text, if the images have different types."""
        if list in self._kinds:
            return "list"
        if self._kinds == {bool}:
            return "bool"
        return "number" if self._kinds <= {int, float} else "text"


def _first(counts: Counter[tuple[bool, Scalar]]) -> list[FacetValue]:
    """The most frequent values. Equally frequent ones are ordered by text, so that each ingest writes the same."""
    most_frequent = heapq.nsmallest(VALUES, counts.items(), key=lambda item: (-item[1], str(item[0][1])))
    return [FacetValue(value=value, count=count) for (_, value), count in most_frequent]
