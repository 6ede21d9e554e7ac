"""The queries of an evaluation: a sample of the index's images, and texts made of their captions and labels. No I/O."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imgsearch.captions import PROMPT, random_order, texts_in
from imgsearch.stores.records import filterable
from imgsearch.vectors import Vector, Vectors


@dataclass
class Survey:
    """The result of a first pass over all rows."""

    images: int = 0
    fields: set[str] = field(default_factory=set)
    words: dict[str, set[str]] = field(default_factory=dict)
    """The distinct texts of each field that may contain the labels."""
    sample: list[tuple[str, Vector, Mapping[str, Any]]] = field(default_factory=list)
    """The images with the smallest ids. Ids are hashes, so the sample is random, and the same for each run of a
    source."""

    def add(
        self, ids: Sequence[str], vectors: Vectors, metadata: Iterable[str], *, labels: set[str], size: int
    ) -> None:
        """Adds the rows of a part. `labels`: the fields that may contain the labels; `size`: of the sample."""
        rows = [filterable(json.loads(text)) for text in metadata]
        self.images += len(ids)
        for row in rows:
            self.fields |= row.keys()
            for name in labels & row.keys():
                self.words.setdefault(name, set()).update(texts_in(row[name]))
        candidates = [(id, vector.copy(), row) for id, vector, row in zip(ids, vectors, rows, strict=True)]
        self.sample = heapq.nsmallest(size, [*self.sample, *candidates], key=lambda candidate: candidate[0])


@dataclass(frozen=True)
class EvaluationQuery:
    """A query whose relevant images are known: an image of the index, or a text."""

    kind: str
    """images, captions or labels"""
    name: str
    """Identifies the query among its kind, in every index: the id of an image, or a label."""
    text: str | None = None
    """None: the query is an image."""
    labels: frozenset[str] = frozenset()
    """An image with one of these labels is relevant."""
    image: str | None = None
    """The id of the only relevant image."""

    @property
    def source_image(self) -> str | None:
        """The id of the image that is the query. It is removed from the results."""
        return self.name if self.text is None else None


def image_queries(survey: Survey, labels: str | None) -> list[EvaluationQuery]:
    """A query for each image of the sample. `labels`: the field with the labels."""
    return [
        EvaluationQuery("images", id, labels=labels_in(metadata.get(labels or ""))) for id, _, metadata in survey.sample
    ]


def text_queries(survey: Survey, labels: str | None, captions: str | None, *, limit: int) -> list[EvaluationQuery]:
    """A query for the first caption of each image of the sample, and for up to `limit` labels."""
    queries = []
    for id, _, metadata in survey.sample:
        if caption := next(iter(texts_in(metadata.get(captions or ""))), None):
            queries.append(EvaluationQuery("captions", id, caption, image=id))
    for label in sorted(survey.words.get(labels or "", ()), key=random_order)[:limit]:
        queries.append(EvaluationQuery("labels", label, PROMPT.format(label), labels=frozenset([label])))
    return queries


def labels_in(value: Any) -> frozenset[str]:
    """The labels in the value of a field: texts, or the numbers of classes."""
    values = value if isinstance(value, list) else [value]
    return frozenset(str(item) for item in values if isinstance(item, (str, int)) and item != "")
