"""The figures of an evaluation: recall and precision of one index, and of two side by side. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgsearch.stores import Neighbour, Pointer
from searcher.evaluation import scores
from searcher.evaluation.queries import EvaluationQuery
from searcher.evaluation.relevance import Relevance
from searcher.evaluation.scores import Estimate
from searcher.recall.exact_search import ExactSearch, recall

CUTOFFS = (1, 5, 10)
"""The numbers of results for which R@k and precision@k are measured."""


@dataclass(frozen=True)
class Figure:
    """One measure over many queries."""

    query_kind: str
    """`images`, `texts`, `captions`, `labels`, or `neighbours` (images as queries for their label)."""
    name: str
    """recall@k: the store's results against exact search. R@k and precision@k: the relevant results."""
    values: Mapping[str, float]
    """The value of each query, by its name."""
    at_best: float
    """The value of perfect results: a label with 3 images cannot have a precision@10 above 0.3."""


@dataclass(frozen=True)
class Evaluated:
    """The figures of one index."""

    pointer: Pointer
    labels: str | None
    """The field with the labels."""
    captions: str | None
    """The field with the captions."""
    figures: list[Figure]
    by_label: list[dict[str, Any]]


def recalls(
    queries: Sequence[EvaluationQuery],
    results: Sequence[Sequence[Neighbour]],
    exact: ExactSearch,
    cutoffs: Iterable[int],
) -> Iterator[Figure]:
    """recall@k for each cutoff. `results`: those of each query, best first."""
    for k in cutoffs:
        values: dict[str, dict[str, float]] = {"images": {}, "texts": {}}
        for row, query in enumerate(queries):
            exact_scores = [exact.score(row, neighbour.id) for neighbour in results[row][:k]]
            kind = "images" if query.source_image else "texts"
            values[kind][f"{query.kind} {query.name}"] = recall(exact_scores, exact.best[row], k)
        for kind, by_query in values.items():
            if by_query:
                yield Figure(kind, f"recall@{k}", by_query, 1.0)


def retrievals(
    queries: Sequence[EvaluationQuery], relevant: Sequence[Sequence[bool]], relevance: Relevance
) -> Iterator[Figure]:
    """R@k and precision@k. `relevant`: for each query, whether its results are relevant."""
    measures = {
        "captions": {"R": scores.any_relevant},
        "labels": {"R": scores.any_relevant, "precision": scores.precision},
        "images": {"precision": scores.precision},
    }
    for kind, by_name in measures.items():
        rows = [row for row, query in enumerate(queries) if query.kind == kind and (query.labels or query.image)]
        for name, measure in by_name.items():
            for k in CUTOFFS if rows else ():
                values = {queries[row].name: measure(relevant[row], k) for row in rows}
                perfect = [measure([True] * relevance.count(row), k) for row in rows]
                yield Figure("neighbours" if kind == "images" else kind, f"{name}@{k}", values, float(np.mean(perfect)))


def by_label(
    queries: Sequence[EvaluationQuery], relevant: Sequence[Sequence[bool]], relevance: Relevance
) -> list[dict[str, Any]]:
    """The results of each label as a query, the worst first."""
    largest = max(CUTOFFS)
    rows = []
    for row, (query, judged) in enumerate(zip(queries, relevant, strict=True)):
        if query.kind == "labels":
            rows.append(
                {
                    "label": query.name,
                    "images": relevance.count(row),
                    "first_at": next((rank for rank, good in enumerate(judged, 1) if good), None),
                    **{f"precision@{k}": scores.precision(judged, k) for k in CUTOFFS},
                }
            )
    return sorted(rows, key=lambda row: (row[f"precision@{largest}"] / min(row["images"], largest), row["label"]))


def document(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    """The JSON for the controller of one index, or of two side by side.

    It has rounded numbers: an estimate for each figure, and the difference of the second index to the first on the
    queries that both have."""
    figures = []
    names = list(dict.fromkeys((figure.query_kind, figure.name) for index in evaluated for figure in index.figures))
    for kind, name in names:
        columns = [_figure(index, kind, name) for index in evaluated]
        first, last = columns[0], columns[-1]
        difference = scores.difference(first.values, last.values) if len(columns) > 1 and first and last else None
        figures.append(
            {
                "of": kind,
                "figure": name,
                "indexes": [
                    figure
                    and {**_rounded(scores.estimate([*figure.values.values()])), "at_best": round(figure.at_best, 4)}
                    for figure in columns
                ],
                "difference": difference and _rounded(difference),
            }
        )
    return {
        "indexes": [
            {
                "index": index.pointer.index,
                "run": index.pointer.run,
                "model": index.pointer.model,
                "images": index.pointer.images,
                "labels": index.labels,
                "captions": index.captions,
                "by_label": index.by_label,
            }
            for index in evaluated
        ],
        "figures": figures,
    }


def _figure(evaluated: Evaluated, kind: str, name: str) -> Figure | None:
    return next((figure for figure in evaluated.figures if (figure.query_kind, figure.name) == (kind, name)), None)


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {
        "queries": estimate.queries,
        "value": round(estimate.value, 4),
        "low": round(estimate.low, 4),
        "high": round(estimate.high, 4),
    }
