"""How good an index is: how much of what an exact search finds its store finds, and, where the source has labels or
captions, how well texts and images find what they should.

Its queries are a sample of the index's own images, and texts made of the labels and captions. The store is asked as a
search asks it; exact scores come from the vectors in the run's folder, so an error of the store cannot hide itself.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from imgsearch.encoder import Encoder
from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs import parts
from imgsearch.settings import EvaluateSettings
from imgsearch.stage import Interrupted
from imgsearch.storage import Storage
from imgsearch.stores import Hit, Pointer, Vectors, VectorStore
from imgsearch.stores.records import filterable
from searcher.evaluation import scores
from searcher.evaluation.scores import Estimate, ExactSearch
from searcher.ingest.parts import Embedded

LABELS = ("label", "labels", "class", "category", "categories", "tags")
CAPTIONS = ("caption", "captions", "text", "description", "title")
"""Fields of the metadata that are looked for, in this order, where none is named."""
PROMPT = "a photo of a {}"
"""A label as a query, as CLIP's authors do it (Radford et al. 2021, https://arxiv.org/abs/2103.00020, 3.1.4)."""
RECALL_AT = (1, 10, 100)
AT = (1, 5, 10)
ASKED = 64
"""Queries of one call of the store."""


@dataclass
class Survey:
    """What a first look at all rows tells."""

    images: int = 0
    fields: set[str] = field(default_factory=set)
    words: dict[str, set[str]] = field(default_factory=dict)
    """The words in each field that may be the labels."""
    nearest: list[tuple[str, Vectors, Mapping[str, Any]]] = field(default_factory=list)
    """The images with the smallest ids, which are hashes: a fair sample, and the same in each run of a source."""


@dataclass(frozen=True)
class Query:
    """One thing to look for."""

    of: str
    """images, captions or labels"""
    name: str
    """Tells it from the others of its kind, in every index: an image's id, a text."""
    vector: Vectors
    own: str | None
    """The id of the image that it is made of, which its answers are without."""
    labels: frozenset[str] = frozenset()
    """An image with one of these is relevant."""
    image: str | None = None
    """The id of the only image that is."""


@dataclass(frozen=True)
class Figure:
    """One number over many queries."""

    of: str
    """What was asked: `images`, `texts`, `captions`, `labels`, or `neighbours`: do images find those with their
    label?"""
    name: str
    """recall@k, of the store against exact search; R@k and precision@k, of what it found."""
    values: Mapping[str, float]
    """By query."""
    at_best: float
    """What perfect answers would have: no label with 3 images has a precision@10 over 0.3."""


@dataclass(frozen=True)
class Evaluated:
    """One index, measured."""

    pointer: Pointer
    labels: str | None
    """The field that they are in."""
    captions: str | None
    figures: list[Figure]
    by_label: list[dict[str, Any]]


class Evaluation:
    """Measures indexes."""

    def __init__(
        self,
        wanted: EvaluateSettings,
        *,
        storage: Storage,
        store: VectorStore,
        load_encoder: Callable[[str], Encoder],
        stopping: threading.Event,
    ) -> None:
        self._wanted = wanted
        self._embedded = Embedded(storage)
        self._store = store
        self._load_encoder = load_encoder
        self._stopping = stopping

    def of(self, pointer: Pointer) -> Evaluated:
        """Measures one index. Raises UsageError for a field that no image has, PermanentError where the run's folder
        or the model's weights are not those that the index was made with."""
        survey = self._survey(pointer)
        labels = self._field(self._wanted.labels, LABELS, survey.fields, pointer)
        captions = self._field(self._wanted.captions, CAPTIONS, survey.fields - {labels}, pointer)
        queries = [*self._images(survey, labels), *self._texts(survey, labels, captions, pointer)]
        answers = {k: self._ask(pointer, queries, k) for k in {*AT, *_recall_at(survey)}}
        exact = ExactSearch(
            np.stack([query.vector for query in queries]),
            own=[query.own for query in queries],
            k=max(_recall_at(survey), default=1),
            answers=[{hit.id for each in answers.values() for hit in each[row]} for row in range(len(queries))],
        )
        relevant = Relevant(queries, labels)
        for ids, vectors, texts in self._rows(pointer.run):
            exact.add(ids, vectors)
            relevant.count(texts)
        judged = [relevant.judge(row, hits) for row, hits in enumerate(answers[max(AT)])]
        figures = [*_recalls(queries, answers, exact, _recall_at(survey)), *_retrievals(queries, judged, relevant)]
        return Evaluated(pointer, labels, captions, figures, _by_label(queries, judged, relevant))

    def _survey(self, pointer: Pointer) -> Survey:
        found = Survey()
        names = {self._wanted.labels} if self._wanted.labels else set(LABELS)
        for ids, vectors, texts in self._rows(pointer.run):
            rows = [filterable(json.loads(text)) for text in texts]
            found.images += len(ids)
            for about in rows:
                found.fields |= about.keys()
                for name in names & about.keys():
                    found.words.setdefault(name, set()).update(_words(about[name]))
            offered = [(id, vector.copy(), about) for id, vector, about in zip(ids, vectors, rows, strict=True)]
            found.nearest = heapq.nsmallest(self._wanted.queries, [*found.nearest, *offered], key=lambda row: row[0])
        if not found.images:
            raise PermanentError(f"run {pointer.run} of index {pointer.index} has no vectors in its folder")
        return found

    def _rows(self, run: str) -> Iterator[tuple[list[str], Vectors, list[str]]]:
        """Ids, vectors (rows, dim) and metadata (JSON) of all images, part by part."""
        for shard in self._embedded.shards(self._embedded.plan(run)):
            for number in range(shard.done.parts):
                if self._stopping.is_set():
                    raise Interrupted
                table = self._embedded.part(shard, number)
                if len(table):
                    yield table["id"].to_pylist(), parts.vectors(table), table["metadata"].to_pylist()

    def _field(self, named: str | None, usual: Sequence[str], there: Collection[str], pointer: Pointer) -> str | None:
        if named is not None and named not in there:
            raise UsageError(
                f"no image of index {pointer.index} has the field {named!r}; there is: "
                f"{', '.join(sorted(there)) or 'none'}"
            )
        return named or next((name for name in usual if name in there), None)

    def _images(self, survey: Survey, labels: str | None) -> Iterator[Query]:
        for id, vector, about in survey.nearest:
            shared = _labels(about.get(labels or ""))
            yield Query("images", id, vector / np.linalg.norm(vector), id, labels=shared)

    def _texts(self, survey: Survey, labels: str | None, captions: str | None, pointer: Pointer) -> list[Query]:
        asked: list[tuple[str, Callable[..., Query]]] = []
        for id, _, about in survey.nearest:
            if caption := next(iter(_words(about.get(captions or ""))), None):
                asked.append((caption, partial(Query, "captions", id, own=None, image=id)))
        words = survey.words.get(labels or "", ())
        for label in sorted(words, key=_hash)[: self._wanted.queries]:
            asked.append((PROMPT.format(label), partial(Query, "labels", label, own=None, labels=frozenset([label]))))
        if not asked:
            return []
        vectors = self._encoder(pointer).encode_texts([text for text, _ in asked])
        return [made(vector=vector) for (_, made), vector in zip(asked, vectors, strict=True)]

    def _encoder(self, pointer: Pointer) -> Encoder:
        encoder = self._load_encoder(pointer.model)
        if encoder.fingerprint != pointer.fingerprint:
            raise PermanentError(
                f"the weights of {pointer.model} here ({encoder.fingerprint[:12]}) are not those that run "
                f"{pointer.run} was made with ({pointer.fingerprint[:12]}); provide those, or index again"
            )
        return encoder

    def _ask(self, pointer: Pointer, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        """The first k answers to each query, without the image that it is made of."""
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), ASKED):
            if self._stopping.is_set():
                raise Interrupted
            some = queries[start : start + ASKED]
            found = self._store.search(pointer.collection, np.stack([query.vector for query in some]), k=k + 1)
            for query, hits in zip(some, found, strict=True):
                others = {hit.id: hit for hit in hits if hit.id != query.own}
                answers.append([*others.values()][:k])
        return answers


class Relevant:
    """Which answers are what a query looks for, and how many images of the index are."""

    def __init__(self, queries: Sequence[Query], field: str | None) -> None:
        self._queries = queries
        self._field = field
        self._with: dict[str, list[int]] = {}
        for row, query in enumerate(queries):
            for label in query.labels:
                self._with.setdefault(label, []).append(row)
        self._counts: Counter[int] = Counter()

    def count(self, metadata: Iterable[str]) -> None:
        """Takes some more images into account, all of which are counted once; `metadata` is JSON."""
        if self._field is None:
            return
        for text in metadata:
            labels = _labels(filterable(json.loads(text)).get(self._field))
            self._counts.update({row for label in labels for row in self._with.get(label, ())})

    def among(self, query: int) -> int:
        """How many images there are to be found; the one that the query is made of is none of them."""
        about = self._queries[query]
        return 1 if about.image else self._counts[query] - (about.own is not None)

    def judge(self, query: int, hits: Iterable[Hit]) -> list[bool]:
        """Which of the hits are relevant."""
        about = self._queries[query]
        if about.image:
            return [hit.id == about.image for hit in hits]
        return [not about.labels.isdisjoint(_labels(hit.metadata.get(self._field or ""))) for hit in hits]


def document(measured: Sequence[Evaluated]) -> dict[str, Any]:
    """One index, or two side by side, as the controller gets it: numbers rounded, an estimate for each figure, and the
    difference of the second to the first on the queries that both have."""
    figures = []
    known = list(dict.fromkeys((figure.of, figure.name) for each in measured for figure in each.figures))
    for of, name in known:
        both = [next((one for one in each.figures if (one.of, one.name) == (of, name)), None) for each in measured]
        first, second = both[0], both[-1]
        compared = scores.difference(first.values, second.values) if len(both) > 1 and first and second else None
        figures.append(
            {
                "of": of,
                "figure": name,
                "indexes": [one and _rounded(scores.estimate([*one.values.values()]), one.at_best) for one in both],
                "difference": compared and _rounded(compared),
            }
        )
    return {
        "indexes": [
            {
                "index": each.pointer.index,
                "run": each.pointer.run,
                "model": each.pointer.model,
                "images": each.pointer.images,
                "labels": each.labels,
                "captions": each.captions,
                "by_label": each.by_label,
            }
            for each in measured
        ],
        "figures": figures,
    }


def _recall_at(survey: Survey) -> list[int]:
    """No k for which all other images are the answer."""
    return [k for k in RECALL_AT if k < survey.images - 1]


def _recalls(
    queries: Sequence[Query], answers: Mapping[int, list[list[Hit]]], exact: ExactSearch, at: Iterable[int]
) -> Iterator[Figure]:
    for k in at:
        values: dict[str, dict[str, float]] = {"images": {}, "texts": {}}
        for row, query in enumerate(queries):
            told = [exact.score(row, hit.id) for hit in answers[k][row]]
            kind = "images" if query.own else "texts"
            values[kind][f"{query.of} {query.name}"] = scores.recall(told, exact.best[row], k)
        for of, each in values.items():
            if each:
                yield Figure(of, f"recall@{k}", each, 1.0)


def _retrievals(queries: Sequence[Query], judged: Sequence[Sequence[bool]], relevant: Relevant) -> Iterator[Figure]:
    measures = {
        "captions": {"R": scores.found},
        "labels": {"R": scores.found, "precision": scores.precision},
        "images": {"precision": scores.precision},
    }
    for of, named in measures.items():
        rows = [row for row, query in enumerate(queries) if query.of == of and (query.labels or query.image)]
        for name, measure in named.items():
            for k in AT if rows else ():
                values = {queries[row].name: measure(judged[row], k) for row in rows}
                perfect = [measure([True] * relevant.among(row), k) for row in rows]
                yield Figure("neighbours" if of == "images" else of, f"{name}@{k}", values, float(np.mean(perfect)))


def _by_label(queries: Sequence[Query], judged: Sequence[Sequence[bool]], relevant: Relevant) -> list[dict[str, Any]]:
    """What became of each label as a query, the worst first."""
    most = max(AT)
    rows = []
    for row, (query, told) in enumerate(zip(queries, judged, strict=True)):
        if query.of == "labels":
            first = next((place for place, good in enumerate(told, 1) if good), None)
            rows.append(
                {
                    "label": query.name,
                    "images": relevant.among(row),
                    "first_at": first,
                    **{f"precision@{k}": scores.precision(told, k) for k in AT},
                }
            )
    return sorted(rows, key=lambda row: (row[f"precision@{most}"] / min(row["images"], most), row["label"]))


def _labels(value: Any) -> frozenset[str]:
    """Of one image: words, or the numbers of classes."""
    values = value if isinstance(value, list) else [value]
    return frozenset(str(one) for one in values if isinstance(one, (str, int)) and one != "")


def _words(value: Any) -> list[str]:
    """A text or a list of texts; nothing of what is none."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _rounded(estimate: Estimate, at_best: float | None = None) -> dict[str, float]:
    told = {"queries": estimate.queries, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    if at_best is not None:
        told["at_best"] = at_best
    return {name: round(value, 4) for name, value in told.items()}
