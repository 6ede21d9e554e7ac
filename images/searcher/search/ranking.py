"""Ranking: from the store's neighbours to a page of results. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np

from imgsearch.settings import SearchSettings
from imgsearch.sources.uri import parse_source
from imgsearch.stores import Neighbour, Pointer, Record
from imgsearch.vectors import Vector, unit
from searcher.search.requests import Search
from searcher.search.responses import Result

FIRST_LEVEL = 101
"""One more than the results for which ingest measures the recall: a page also needs the first one of the next page."""
LEVEL_GROWTH = 4
FEWEST_CANDIDATES = 1.25
"""Of a level, for each of its ranks."""
FOLD_ROWS = 256
ROUNDING = 1e-6
"""A float32 cosine of a vector with itself may be less than 1 by this much."""


def levels(limits: SearchSettings) -> Iterator[int]:
    """The ranks at which the levels of a search end, until they are enough for the page.

    An approximate search for more neighbours looks further, and finds some of the best that a smaller search missed. If
    each page made the search that it needs, these neighbours would move the others across the borders of pages, and an
    image would appear twice or never. So the levels are the same for every page of every search, and `level` appends
    the new neighbours of a level to those of the levels before it: all pages are parts of one list."""
    largest = limits.max_offset + limits.max_k + 1
    end = FIRST_LEVEL
    while end < largest:
        yield end
        end *= LEVEL_GROWTH
    yield largest


def candidates(end: int, first: int) -> int:
    """The number of neighbours to request from the store for the level up to this rank. `first` is Pointer.candidates.
    Later ranks need fewer candidates each (docs/adr/0016-candidates-are-the-effort.md)."""
    growth = math.sqrt(max(1, end / FIRST_LEVEL))
    return math.ceil(max(first * growth, FEWEST_CANDIDATES * end))


@dataclass(frozen=True)
class Level:
    """One level of a search."""

    ranked: Sequence[Neighbour]
    """All neighbours from the first rank to the end of the level."""
    is_last: bool
    """Whether the store has no more neighbours."""
    lowest: float
    """The best score that this level found and leaves to the next ones, which find no better one; else its lowest."""


def level(earlier: Sequence[Neighbour], neighbours: Sequence[Neighbour], end: int) -> Level:
    """`earlier`, unchanged, then the new ones of `neighbours`, up to the rank `end`: best first, equal ones by id.
    `neighbours`: those of the search for this level, best first."""
    known = {neighbour.id for neighbour in earlier}
    new = sorted((n for n in neighbours if n.id not in known), key=lambda n: (-n.score, n.id))
    ranked = [*earlier, *new]
    left = ranked[end:] or neighbours[-1:]
    return Level(ranked[:end], is_last=len(neighbours) < end, lowest=left[0].score if left else -1.0)


@dataclass
class Group:
    """A result, and its near-duplicates, which are not shown."""

    best: Neighbour
    duplicates: list[str] = field(default_factory=list)


def reaching(neighbours: Sequence[Neighbour], min_score: float | None) -> Sequence[Neighbour]:
    """The neighbours that reach the minimum score."""
    return neighbours if min_score is None else [n for n in neighbours if n.score >= min_score]


def folded(neighbours: Sequence[Neighbour], vectors: Mapping[str, Vector], min_cosine: float) -> list[Group]:
    """Folds each neighbour into the first earlier one that leads a group and has at least this cosine with it.

    Later neighbours do not change the group of an earlier one. `vectors`: by id."""
    groups: list[Group] = []
    if not neighbours:
        return groups
    rows = unit(np.stack([vectors[neighbour.id] for neighbour in neighbours]))
    leaders: list[int] = []
    for start in range(0, len(neighbours), FOLD_ROWS):
        # One product of matrices is many times faster than one for each pair, and all pairs at once may not fit.
        block = rows[start : start + FOLD_ROWS]
        similar = block @ np.concatenate([rows[leaders], block]).T >= min_cosine - ROUNDING
        group = np.arange(similar.shape[1])  # of each column; -1: the column leads no group
        group[len(leaders) :] = -1
        block_group = group[len(leaders) :]
        for row, neighbour in enumerate(neighbours[start : start + FOLD_ROWS]):
            matching = group[similar[row] & (group >= 0)]
            if matching.size:
                groups[matching[0]].duplicates.append(neighbour.id)
            else:
                block_group[row] = len(groups)
                groups.append(Group(neighbour))
                leaders.append(start + row)
    return groups


def page(groups: Sequence[Group], records: Sequence[Record], search: Search, *, pointer: Pointer) -> list[Result]:
    """The results of the groups of a page. `records`: those of the groups, in their order."""
    prefix = parse_source(pointer.source).image_prefix
    # With the run, a URL always shows the same image, so clients may cache it.
    parameters = f"?index={quote(pointer.index, safe='')}&run={quote(pointer.run, safe='')}"
    return [
        _result(group, record, search, prefix=prefix, parameters=parameters)
        for group, record in zip(groups, records, strict=True)
    ]


def _result(group: Group, record: Record, search: Search, *, prefix: str, parameters: str) -> Result:
    path = f"/v1/images/{quote(record.id, safe='')}"
    result: Result = {
        "id": record.id,
        "score": round(min(1.0, max(-1.0, group.best.score)), 6),  # rounding errors give 1.0000001
        "uri": prefix + str(record.internal["key"]),
        "image": path + parameters,
        "thumbnail": f"{path}/thumbnail{parameters}",
        "width": record.internal["width"],
        "height": record.internal["height"],
    }
    if "metadata" in search.include:
        result["metadata"] = dict(record.metadata)
    if "embedding" in search.include and record.vector is not None:
        result["embedding"] = record.vector.tolist()
    if search.dedupe is not None:
        result["duplicates"] = group.duplicates
    return result
