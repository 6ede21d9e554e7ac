"""Relevance: the results that answer a query, and the number of relevant images in the index. No I/O."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from imgsearch.stores import Record
from imgsearch.stores.records import filterable
from searcher.evaluation.queries import EvaluationQuery, labels_in


class Relevance:
    """Judges results, and counts the relevant images of each query."""

    def __init__(self, queries: Sequence[EvaluationQuery], field: str | None) -> None:
        """`field` contains the labels."""
        self._queries = queries
        self._field = field
        self._rows: dict[str, list[int]] = {}
        """The queries with each label."""
        for row, query in enumerate(queries):
            for label in query.labels:
                self._rows.setdefault(label, []).append(row)
        self._counts: Counter[int] = Counter()

    def add(self, metadata: Iterable[str]) -> None:
        """Counts some images of the index by their metadata (JSON). Each image must be counted once."""
        if self._field is None:
            return
        for text in metadata:
            labels = labels_in(filterable(json.loads(text)).get(self._field))
            self._counts.update({row for label in labels for row in self._rows.get(label, ())})

    def count(self, row: int) -> int:
        """The number of images that are relevant for the query, without the image that is the query."""
        query = self._queries[row]
        return 1 if query.image else self._counts[row] - (query.source_image is not None)

    def judge(self, row: int, results: Iterable[Record]) -> list[bool]:
        """For each result, whether it is relevant for the query."""
        query = self._queries[row]
        if query.image:
            return [record.id == query.image for record in results]
        return [not query.labels.isdisjoint(labels_in(record.metadata.get(self._field or ""))) for record in results]
