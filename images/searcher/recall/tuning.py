"""The effort of a search: how many candidates reach the target of the recall. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from imgsearch.runs.documents import RecallFigure
from imgsearch.stores import Neighbour

FEWEST = 128
MOST = 4_096
"""With half of them, a search among 20 000 vectors takes 22 ms of CPU time (docs/benchmarks.md)."""
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


def agree(fewer: Sequence[Sequence[Neighbour]], more: Sequence[Sequence[Neighbour]], target: float) -> bool:
    """Whether more candidates changed so few of the results that still more candidates would change nothing."""
    pairs = list(zip(fewer, more, strict=True))
    same = sum(len({n.id for n in first} & {n.id for n in second}) for first, second in pairs)
    return same >= (1 - AGREEMENT * (1 - target)) * sum(len(second) for _, second in pairs)


def fewest(means: Mapping[int, Sequence[float]], target: float) -> int:
    """The fewest candidates with which every mean recall reaches the target, or else the best of the recalls. `means`:
    by the number of candidates, not empty."""
    lowest = {candidates: min(values) for candidates, values in means.items()}
    goal = min(target, max(lowest.values()))
    return min(candidates for candidates, value in lowest.items() if value >= goal)


def warning(figures: Sequence[RecallFigure], target: float, candidates: int) -> str:
    """The problem of the recall of an index and its solutions, as a sentence; empty if it reaches the target."""
    below = min(figures, key=lambda figure: figure["mean"], default=None)
    if below is None or below["mean"] >= target:
        return ""
    return (
        f"recall@{below['k']} of {below['queries']} is {below['mean']:.4f}, {target - below['mean']:.4f} below the "
        f"target {target:g} (index.recall), with {candidates:,} candidates a search, the best of all tries. Run "
        "`controller restore`, which builds the graph of the store again, if an earlier version filled the store. "
        "Otherwise the vectors are too alike for it: use a model that separates your images better, or accept this "
        "recall and set index.recall to it"
    )
