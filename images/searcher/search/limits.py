"""Checks of a request against the limits in the settings. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from imgsearch.settings import SearchSettings
from searcher.search.cursors import Cursor
from searcher.search.errors import invalid
from searcher.search.requests import Embed, Search, SingleQuery


def check_search(search: Search, limits: SearchSettings) -> None:
    """Raises Problem, with the field's name, where the search exceeds a limit."""
    if search.k > limits.max_k:
        raise invalid("k", f"at most {limits.max_k} results a page; get the next page with cursor")
    if search.parts and len(search.parts) > limits.max_parts:
        raise invalid("parts", f"at most {limits.max_parts} parts")
    check_texts([query.text for query in search.queries() if query.text], limits)


def check_urls(queries: Sequence[SingleQuery], limits: SearchSettings) -> None:
    """Raises Problem where the queries of a request name too many images by URL."""
    if sum(query.image_url is not None for query in queries) > limits.max_urls:
        raise invalid("image_url", f"at most {limits.max_urls} in one request; send the rest in another one")


def check_cursor(cursor: Cursor, limits: SearchSettings) -> None:
    """Raises Problem where the page is beyond the limits."""
    if cursor.offset > limits.max_offset:
        raise invalid("offset", f"paging ends at {limits.max_offset}; narrow the search with a filter")


def check_embed(embed: Embed, limits: SearchSettings) -> None:
    """Raises Problem where a text exceeds the limit."""
    check_texts(embed.text or [], limits)


def check_texts(texts: Sequence[str], limits: SearchSettings) -> None:
    """Raises Problem where a text exceeds the limit."""
    if any(len(text) > limits.max_text_chars for text in texts):
        raise invalid("text", f"at most {limits.max_text_chars} characters")
