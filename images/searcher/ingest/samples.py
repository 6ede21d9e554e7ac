"""A random sample of the records, taken while they stream by. No I/O."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from imgsearch.stores import Record
from imgsearch.vectors import Vector, Vectors


class Samples:
    """A uniform sample (reservoir sampling, algorithm R, Vitter 1985). The same records give the same sample."""

    def __init__(self, run: str, size: int) -> None:
        self._random = random.Random(run)
        self._size = size
        self._seen = 0
        self.records: list[Record] = []

    def add(self, records: Sequence[Record]) -> None:
        for record in records:
            self._seen += 1
            if len(self.records) < self._size:
                self.records.append(_copied(record))
            elif (index := self._random.randrange(self._seen)) < self._size:
                self.records[index] = _copied(record)

    def vectors(self) -> Vectors:
        """(samples, dim)."""
        return np.stack([vector_of(record) for record in self.records])


class PartEnds:
    """The last record of each part, without its vector. The place of its thumbnail depends on all those before it."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, records: Sequence[Record]) -> None:
        """Adds the records of one part."""
        if records:
            self.records.append(replace(records[-1], vector=None))


def vector_of(record: Record) -> Vector:
    """The vector of a record from a part. Each of these records has one."""
    assert record.vector is not None
    return record.vector


def _copied(record: Record) -> Record:
    """The record with a copy of its vector. The vector itself is a view, which would keep the whole part in memory."""
    return replace(record, vector=vector_of(record).copy())
