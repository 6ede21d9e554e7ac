"""Cursors: the position of a page in the results of one run, as an opaque text for clients."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from imgsearch.stores import Pointer
from searcher.search.errors import invalid
from searcher.search.requests import Search


@dataclass(frozen=True)
class Cursor:
    """The position of one page. Not signed: a forged cursor gives a page that the client could have requested."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a cursor of an earlier version has more fields

    index: str | None
    run: str | None
    """None: the current run."""
    query: str
    """The digest of the search."""
    offset: Annotated[int, Field(ge=0)]

    @classmethod
    def of(cls, search: Search) -> Cursor:
        """The position that a search asks for. Raises Problem for a cursor of another search."""
        query = _digest(search)
        if search.cursor is None:
            return cls(search.index, None, query, search.offset)
        try:
            text = search.cursor + "=" * (-len(search.cursor) % 4)
            cursor = _ADAPTER.validate_json(urlsafe_b64decode(text))
        except ValueError:
            raise invalid(
                "cursor", "invalid cursor; give `next_cursor` of the previous page, or search again without it"
            ) from None
        if cursor.query != query or search.index not in (None, cursor.index):
            raise invalid("cursor", "it belongs to another search; change only k and include between pages")
        return cursor

    def next(self, pointer: Pointer, offset: int) -> str:
        """The text of the cursor for the page at `offset` of the same search in this run."""
        cursor = replace(self, index=pointer.index, run=pointer.run, offset=offset)
        return urlsafe_b64encode(_ADAPTER.dump_json(cursor)).rstrip(b"=").decode()


_ADAPTER = TypeAdapter(Cursor)


def _digest(search: Search) -> str:
    """Equal for searches that have the same results in the same order."""
    terms = [term.model_dump(exclude_none=True) for term in search.terms()]
    criteria = [terms, search.filter, search.min_score, search.dedupe]
    return hashlib.sha256(json.dumps(criteria, default=_image_digest, sort_keys=True).encode()).hexdigest()[:32]


def _image_digest(image: Any) -> str:
    return hashlib.sha256(image).hexdigest()
