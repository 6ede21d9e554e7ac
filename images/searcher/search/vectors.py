"""From a search to one vector, and from the store's hits to a page of results. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from imgsearch.settings import SearchSettings
from imgsearch.sources.uri import parse
from imgsearch.stores import Hit, Pointer
from searcher.search.batcher import Vector
from searcher.search.cursors import Cursor
from searcher.search.errors import invalid
from searcher.search.requests import Embed, Result, Search

NEARLY_ZERO = 1e-6
"""A weighted sum shorter than this is rounding errors: its direction means nothing."""

FOLD_ROWS = 256
ROUNDING = 1e-6
"""The cosine of a vector with itself may be this much less than 1 in float32."""


def check(search: Search, limits: SearchSettings) -> None:
    """Raises Problem, naming the field, where the search asks for more than is served."""
    if search.k > limits.max_k:
        raise invalid("k", f"at most {limits.max_k} results at once; page with cursor")
    if search.parts and len(search.parts) > limits.max_parts:
        raise invalid("parts", f"at most {limits.max_parts} parts")
    check_texts([term.text for term in search.terms() if term.text], limits)


def check_place(place: Cursor, limits: SearchSettings) -> None:
    """Raises Problem where the page is not one that is served."""
    if place.pool > limits.max_k + 1:
        raise invalid("cursor", "it was made up, or for a larger k than is served now; search again without it")
    if place.offset > limits.max_offset:
        raise invalid("offset", f"paging goes to {limits.max_offset}; narrow the search with a filter")


def check_texts(texts: Sequence[str], limits: SearchSettings) -> None:
    """Raises Problem where a text is longer than the limit."""
    if any(len(text) > limits.max_text_chars for text in texts):
        raise invalid("text", f"at most {limits.max_text_chars} characters")


def check_embed(embed: Embed, limits: SearchSettings) -> None:
    check_texts(embed.text or [], limits)


def direction(embedding: Sequence[float], dim: int) -> Vector:
    """A client's embedding as a unit vector; raises Problem where it cannot be one of this index."""
    if len(embedding) != dim:
        raise invalid("embedding", f"it has {len(embedding)} numbers, but vectors of this index have {dim}")
    values = np.asarray(embedding, np.float64)
    peak = np.abs(values).max()
    if peak == 0:
        raise invalid("embedding", "all its numbers are zero, so it has no direction")
    return _unit(values / peak)  # 1e300 squared is no number any more


def combine(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """The normalised sum of unit vectors (dim,), each times its weight; raises Problem if that is zero."""
    total = np.asarray(weights, np.float64) @ np.stack(vectors)
    if np.linalg.norm(total) <= NEARLY_ZERO * np.abs(weights).sum():
        raise invalid("parts", "they cancel each other out, so no direction is left; change a weight")
    return _unit(total)


def _unit(vector: NDArray[np.float64]) -> Vector:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def pools(first: int, limits: SearchSettings) -> Iterator[int]:
    """How many hits to ask the store for: at first, and again and again until they are enough for the page.

    An approximate search that is asked for more looks farther, and finds hits among the best that it missed before.
    With the number that a page happens to need, they would push others to where that page ends or begins, and these
    would be seen twice or never. So all pages of a search ask for the same numbers, and `ranked` adds each answer to
    what the ones before it gave: no page changes what comes before it."""
    most = limits.max_offset + limits.max_k + 1
    while first < most:
        yield first
        first *= 2
    yield most


def ranked(before: Sequence[Hit], hits: Iterable[Hit]) -> list[Hit]:
    """`before` as it is, then those of `hits` that are new, best first and equal ones by id."""
    known = {hit.id for hit in before}
    return [*before, *sorted((hit for hit in hits if hit.id not in known), key=lambda hit: (-hit.score, hit.id))]


@dataclass
class Group:
    """A result, and what is so like it that it is not shown beside it."""

    best: Hit
    duplicates: list[str] = field(default_factory=list)


def grouped(hits: Sequence[Hit], search: Search) -> list[Group]:
    """The ranked hits that are similar enough, near-duplicates folded where the search wants it."""
    if search.min_score is not None:
        hits = [hit for hit in hits if hit.score >= search.min_score]
    return [Group(hit) for hit in hits] if search.dedupe is None else folded(hits, search.dedupe)


def folded(hits: Sequence[Hit], likeness: float) -> list[Group]:
    """Each hit is folded into the first one before it that was not folded itself and whose cosine with it is at least
    `likeness`. What comes after a hit does not change where it goes. `hits` need their vectors."""
    groups: list[Group] = []
    if not hits:
        return groups
    vectors = np.stack([hit.vector for hit in hits if hit.vector is not None])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    leaders: list[int] = []
    for start in range(0, len(hits), FOLD_ROWS):
        # One product of matrices is many times faster than one for each pair, and all pairs at once may not fit.
        block = vectors[start : start + FOLD_ROWS]
        alike = block @ np.concatenate([vectors[leaders], block]).T >= likeness - ROUNDING
        group = np.arange(alike.shape[1])  # of each column; -1: it leads none
        group[len(leaders) :] = -1
        own = group[len(leaders) :]
        for row, hit in enumerate(hits[start : start + FOLD_ROWS]):
            into = group[alike[row] & (group >= 0)]
            if into.size:
                groups[into[0]].duplicates.append(hit.id)
            else:
                own[row] = len(groups)
                groups.append(Group(hit))
                leaders.append(start + row)
    return groups


def enough(groups: Sequence[Group], hits: Sequence[Hit], search: Search, *, upto: int, pool: int) -> bool:
    """Whether a larger pool is of no use: the page is full and one more, or these `hits` are all there are."""
    if len(groups) > upto or len(hits) < pool:
        return True
    return search.min_score is not None and min(hit.score for hit in hits) < search.min_score


def page(groups: Sequence[Group], search: Search, *, offset: int, pointer: Pointer) -> tuple[list[Result], int | None]:
    """The results of the page at `offset`, and the next one's offset."""
    end = offset + search.k
    prefix = parse(pointer.source).image_prefix
    # With the run they may be kept for ever, and show what was found, though a newer one is published.
    of = f"?index={quote(pointer.index, safe='')}&run={quote(pointer.run, safe='')}"
    results = [_result(group, search, prefix=prefix, of=of) for group in groups[offset:end]]
    return results, end if len(groups) > end else None


def _result(group: Group, search: Search, *, prefix: str, of: str) -> Result:
    hit = group.best
    path = f"/v1/images/{quote(hit.id, safe='')}"
    result: Result = {
        "id": hit.id,
        "score": round(min(1.0, max(-1.0, hit.score)), 6),  # 1.0000001 is how floats say 1
        "uri": prefix + str(hit.metadata["_key"]),
        "image": path + of,
        "thumbnail": f"{path}/thumbnail{of}",
        "width": hit.metadata["_width"],
        "height": hit.metadata["_height"],
    }
    if "metadata" in search.include:
        result["metadata"] = public(hit.metadata)
    if "embedding" in search.include and hit.vector is not None:
        result["embedding"] = hit.vector.tolist()
    if search.dedupe is not None:
        result["duplicates"] = group.duplicates
    return result


def public(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The source's metadata, without what we added."""
    return {name: value for name, value in metadata.items() if not name.startswith("_")}
