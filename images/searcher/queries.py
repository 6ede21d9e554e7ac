"""From a search to one vector, and from the store's hits to a page of results. No I/O here."""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from imgsearch.settings import SearchSettings
from imgsearch.stores import Hit, Pointer
from searcher.batching import Vector
from searcher.problems import invalid
from searcher.schemas import Embed, Result, Search

NEARLY_ZERO = 1e-6
"""A weighted sum shorter than this is rounding errors: its direction means nothing."""


def check(search: Search, limits: SearchSettings) -> None:
    """Raises Problem, naming the field, where the search asks for more than is served."""
    if search.k > limits.max_k:
        raise invalid("k", f"at most {limits.max_k} results at once; page with offset")
    if search.offset > limits.max_offset:
        raise invalid("offset", f"paging goes to {limits.max_offset}; narrow the search with a filter")
    if search.parts and len(search.parts) > limits.max_parts:
        raise invalid("parts", f"at most {limits.max_parts} parts")
    check_texts([term.text for term in search.terms() if term.text], limits)


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


def page(hits: Sequence[Hit], search: Search, *, pointer: Pointer) -> tuple[list[Result], int | None]:
    """The results of the asked page, and the next one's offset. `hits` are the best `offset + k + 1`."""
    wanted = hits[search.offset :]
    if search.min_score is not None:
        wanted = [hit for hit in wanted if hit.score >= search.min_score]
    more = len(wanted) > search.k
    results = [_result(hit, pointer, search.include) for hit in wanted[: search.k]]
    return results, search.offset + search.k if more else None


def _result(hit: Hit, pointer: Pointer, include: Sequence[str]) -> Result:
    path = f"/v1/images/{quote(hit.id, safe='')}"
    index = f"?index={quote(pointer.index, safe='')}"
    result: dict[str, Any] = {
        "id": hit.id,
        "score": round(min(1.0, max(-1.0, hit.score)), 6),  # 1.0000001 is how floats say 1
        "uri": location(pointer.source, str(hit.metadata["_key"])),
        "image": path + index,
        "thumbnail": f"{path}/thumbnail{index}",
    }
    if "metadata" in include:
        result["metadata"] = public(hit.metadata)
    if "embedding" in include and hit.vector is not None:
        result["embedding"] = hit.vector.tolist()
    return Result.model_construct(**result)


def public(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The source's metadata, without what we added."""
    return {name: value for name, value in metadata.items() if not name.startswith("_")}


def location(source: str, key: str) -> str:
    """Where an image is: its source's URI without options or pattern, and its key in there."""
    if source.startswith("hf://"):
        place = source.partition("?")[0]
    elif parquet := re.fullmatch(r"(.+\.parquet)(?:\?.*)?", source):
        place = posixpath.dirname(parquet[1])
        while glob.has_magic(place):
            place = posixpath.dirname(place)
    else:
        place = source
    return f"{place.rstrip('/')}/{key}"
