"""Ranking: from the store's hits to a page of results. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np

from imgsearch.settings import SearchSettings
from imgsearch.sources.uri import parse_source
from imgsearch.stores import Hit, Pointer
from searcher.search.requests import Search
from searcher.search.responses import Result

FOLD_ROWS = 256
ROUNDING = 1e-6
"""A float32 cosine of a vector with itself may be less than 1 by this much."""


def pools(first: int, limits: SearchSettings) -> Iterator[int]:
    """The numbers of hits to request from the store, one after the other, until they are enough for the page.

    An approximate search for more hits looks further, and finds some of the best that a smaller search missed. If each
    page requested the number that it needs, these hits would move the others across the borders of pages, and an image
    would appear twice or never. So all pages of a search request the same numbers, and `ranked` appends new hits to
    those of the smaller searches: no page changes the pages before it."""
    largest = limits.max_offset + limits.max_k + 1
    while first < largest:
        yield first
        first *= 2
    yield largest


def ranked(earlier: Sequence[Hit], hits: Iterable[Hit]) -> list[Hit]:
    """`earlier`, unchanged, then the new ones of `hits`: best first, equal scores by id."""
    known = {hit.id for hit in earlier}
    return [*earlier, *sorted((hit for hit in hits if hit.id not in known), key=lambda hit: (-hit.score, hit.id))]


@dataclass
class Group:
    """A result, and its near-duplicates, which are not shown."""

    best: Hit
    duplicates: list[str] = field(default_factory=list)


def grouped(hits: Sequence[Hit], search: Search) -> list[Group]:
    """The ranked hits that reach the minimum score; near-duplicates are folded where the search asks for it."""
    if search.min_score is not None:
        hits = [hit for hit in hits if hit.score >= search.min_score]
    return [Group(hit) for hit in hits] if search.dedupe is None else folded(hits, search.dedupe)


def folded(hits: Sequence[Hit], min_cosine: float) -> list[Group]:
    """Folds each hit into the first earlier hit that leads a group and has at least this cosine with it.

    Later hits do not change the group of an earlier one. `hits` need their vectors."""
    groups: list[Group] = []
    if not hits:
        return groups
    vectors = np.stack([hit.vector for hit in hits if hit.vector is not None])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    leaders: list[int] = []
    for start in range(0, len(hits), FOLD_ROWS):
        # One product of matrices is many times faster than one for each pair, and all pairs at once may not fit.
        block = vectors[start : start + FOLD_ROWS]
        similar = block @ np.concatenate([vectors[leaders], block]).T >= min_cosine - ROUNDING
        group = np.arange(similar.shape[1])  # of each column; -1: the column leads no group
        group[len(leaders) :] = -1
        block_group = group[len(leaders) :]
        for row, hit in enumerate(hits[start : start + FOLD_ROWS]):
            matching = group[similar[row] & (group >= 0)]
            if matching.size:
                groups[matching[0]].duplicates.append(hit.id)
            else:
                block_group[row] = len(groups)
                groups.append(Group(hit))
                leaders.append(start + row)
    return groups


def enough(groups: Sequence[Group], hits: Sequence[Hit], search: Search, *, end: int, pool: int) -> bool:
    """Whether a larger pool is of no use: the page is full and has a next one, or the store has no more hits."""
    if len(groups) > end or len(hits) < pool:
        return True
    return search.min_score is not None and min(hit.score for hit in hits) < search.min_score


def page(groups: Sequence[Group], search: Search, *, offset: int, pointer: Pointer) -> tuple[list[Result], int | None]:
    """The results of the page at `offset`, and the offset of the next page."""
    end = offset + search.k
    prefix = parse_source(pointer.source).image_prefix
    # With the run, a URL always shows the same image, so clients may cache it.
    parameters = f"?index={quote(pointer.index, safe='')}&run={quote(pointer.run, safe='')}"
    results = [_result(group, search, prefix=prefix, parameters=parameters) for group in groups[offset:end]]
    return results, end if len(groups) > end else None


def _result(group: Group, search: Search, *, prefix: str, parameters: str) -> Result:
    hit = group.best
    path = f"/v1/images/{quote(hit.id, safe='')}"
    result: Result = {
        "id": hit.id,
        "score": round(min(1.0, max(-1.0, hit.score)), 6),  # rounding errors give 1.0000001
        "uri": prefix + str(hit.internal["key"]),
        "image": path + parameters,
        "thumbnail": f"{path}/thumbnail{parameters}",
        "width": hit.internal["width"],
        "height": hit.internal["height"],
    }
    if "metadata" in search.include:
        result["metadata"] = dict(hit.metadata)
    if "embedding" in search.include and hit.vector is not None:
        result["embedding"] = hit.vector.tolist()
    if search.dedupe is not None:
        result["duplicates"] = group.duplicates
    return result
