"""Where a search goes on: its run and its place there, as a text that clients get and hand back."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from imgsearch.stores import Pointer
from searcher.search.errors import invalid
from searcher.search.requests import Search


@dataclass(frozen=True)
class Cursor:
    """The place of one page. Not signed: whoever makes one up gets a page that could have been asked for anyway."""

    index: str | None
    run: str | None
    """None: the run that is current."""
    query: str
    """The digest of what is looked for."""
    pool: Annotated[int, Field(ge=1)]
    """How many hits the first page began with; see queries.pools."""
    offset: Annotated[int, Field(ge=0)]

    @classmethod
    def of(cls, search: Search) -> Cursor:
        """The place that a search asks for; raises Problem for a cursor that is not of this search."""
        query = _digest(search)
        if search.cursor is None:
            return cls(search.index, None, query, search.k + 1, search.offset)
        try:
            text = search.cursor + "=" * (-len(search.cursor) % 4)
            cursor = _FORM.validate_json(urlsafe_b64decode(text))
        except ValueError:
            raise invalid("cursor", "it is none of ours; give `next_cursor` of the page before") from None
        if cursor.query != query or search.index not in (None, cursor.index):
            raise invalid("cursor", "it belongs to another search; change only k and include between pages")
        return cursor

    def following(self, pointer: Pointer, offset: int) -> str:
        """The text of the page at `offset` of the same search in this run."""
        place = replace(self, index=pointer.index, run=pointer.run, offset=offset)
        return urlsafe_b64encode(_FORM.dump_json(place)).rstrip(b"=").decode()


_FORM = TypeAdapter(Cursor)


def _digest(search: Search) -> str:
    """Equal for searches that find the same in the same order."""
    terms = [term.model_dump(exclude_none=True) for term in search.terms()]
    asked = [terms, search.filter, search.min_score, search.dedupe]
    return hashlib.sha256(json.dumps(asked, default=_short, sort_keys=True).encode()).hexdigest()[:32]


def _short(image: Any) -> str:
    return hashlib.sha256(image).hexdigest()
