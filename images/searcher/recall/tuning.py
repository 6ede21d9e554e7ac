"""The effort of a search: the candidates of the store, or the rows of the table, that reach the target of the recall.
No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import TypeVar

from imgsearch.runs.documents import RecallFigure
from imgsearch.stores import Neighbour
from searcher.table.costs import DIM, of_store

Effort = TypeVar("Effort")

FEWEST = 128
MOST = 4_096
"""With half of them, a search among 20 000 vectors takes 22 ms of CPU time (docs/benchmarks.md)."""
FEWEST_COMPARED = 1_000
"""Rows of 512 dimensions, in the nearest clusters."""
AGREEMENT = 0.25
"""Two searches agree if they differ in less than this share of the results that the target allows to be wrong."""


def steps(images: int) -> Iterator[int]:
    """The numbers of candidates to try for a collection of this size, in turn: each is twice the one before."""
    candidates = FEWEST
    while True:
        yield candidates
        if candidates >= min(MOST, images):
            return
        candidates *= 2


def row_steps(rows: int, dim: int) -> Iterator[int]:
    """The numbers of rows to compare that are tried for a table of this size: each is √2 times the one before. The last
    one takes about the time of a search of the store for MOST candidates, or is the whole table."""
    most = of_store(MOST) * DIM / dim
    for step in count():
        compared = min(rows, round(FEWEST_COMPARED * 2 ** (step / 2)))
        if compared <= most:
            yield compared
        if compared >= min(rows, most):
            return


def agree(fewer: Sequence[Sequence[Neighbour]], more: Sequence[Sequence[Neighbour]], target: float) -> bool:
    """Whether more candidates changed so few of the results that still more candidates would change nothing."""
    pairs = list(zip(fewer, more, strict=True))
    same = sum(len({n.id for n in first} & {n.id for n in second}) for first, second in pairs)
    return same >= (1 - AGREEMENT * (1 - target)) * sum(len(second) for _, second in pairs)


def cheapest(means: Mapping[Effort, Sequence[float]], target: float, cost: Callable[[Effort], float]) -> Effort:
    """The effort with the least cost with which every mean recall reaches the target, or else the best of the recalls.
    `means`: by effort, not empty."""
    lowest = {effort: min(values) for effort, values in means.items()}
    goal = min(target, max(lowest.values()))
    return min((effort for effort, value in lowest.items() if value >= goal), key=cost)


def warning(figures: Sequence[RecallFigure], target: float, effort: str) -> str:
    """The problem of the recall of an index and its solutions, as a sentence; empty if it reaches the target. `effort`:
    that of a search, in words."""
    below = min(figures, key=lambda figure: figure["mean"], default=None)
    if below is None or below["mean"] >= target:
        return ""
    return (
        f"recall@{below['k']} of {below['queries']} is {below['mean']:.4f}, {target - below['mean']:.4f} below the "
        f"target {target:g} (index.recall), with {effort} a search, the best of all tries. Run "
        "`controller restore`, which builds the graph of the store again, if an earlier version filled the store. "
        "Otherwise the vectors are too alike for it: use a model that separates your images better, or accept this "
        "recall and set index.recall to it"
    )
