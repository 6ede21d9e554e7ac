"""Checks of a request against the limits in the settings. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from imgsearch.settings import SearchSettings
from searcher.search.cursors import Cursor
from searcher.search.errors import invalid
from searcher.search.requests import Embed, Search


def check_search(search: Search, limits: SearchSettings) -> None:
    """Raises Problem, with the field's name, where the search exceeds a limit."""
    if search.k > limits.max_k:
        raise invalid("k", f"at most {limits.max_k} results a page; get the next page with cursor")
    if search.parts and len(search.parts) > limits.max_parts:
        raise invalid("parts", f"at most {limits.max_parts} parts")
    _check_texts([term.text for term in search.terms() if term.text], limits)


def check_cursor(cursor: Cursor, limits: SearchSettings) -> None:
    """Raises Problem where the page is beyond the limits."""
    if cursor.pool > limits.max_k + 1:
        raise invalid("cursor", "it was not made by this searcher, or is for a larger k; search again without it")
    if cursor.offset > limits.max_offset:
        raise invalid("offset", f"paging ends at {limits.max_offset}; narrow the search with a filter")


def check_embed(embed: Embed, limits: SearchSettings) -> None:
    """Raises Problem where a text exceeds the limit."""
    _check_texts(embed.text or [], limits)


def _check_texts(texts: Sequence[str], limits: SearchSettings) -> None:
    if any(len(text) > limits.max_text_chars for text in texts):
        raise invalid("text", f"at most {limits.max_text_chars} characters")
