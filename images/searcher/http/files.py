"""Files as responses: whole, a range, or 304 (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from searcher.content.files import File, content_etag, etag_matches
from searcher.search.errors import Problem

CACHE_5_MINUTES = "private, max-age=300"
"""The header for a file that may change with the next run."""
IMMUTABLE = "private, max-age=31536000, immutable"
REVALIDATE = "private, no-cache"
"""The client keeps a copy, and asks each time whether it is current: a 304 until there is another run."""

MAX_DIGITS = 18
"""Digits of a position in a file: no file is larger, and Python refuses to parse thousands of digits."""


@dataclass(frozen=True)
class Conditions:
    """The request headers that select a version or a range of a file."""

    if_none_match: str = ""
    range: str = ""
    if_range: str = ""


def _conditions(
    if_none_match: Annotated[
        str, Header(alias="If-None-Match", description="ETags of the copies that the client has.")
    ] = "",
    range: Annotated[
        str,
        Header(
            description="`bytes=0-99`: only this range, with status 206. For several ranges, the whole file is sent."
        ),
    ] = "",
    if_range: Annotated[
        str,
        Header(description="The ETag of the version to send a range of. For another version, the whole file is sent."),
    ] = "",
) -> Conditions:
    return Conditions(if_none_match, range, if_range)


RequestConditions = Annotated[Conditions, Depends(_conditions)]


def requested_range(conditions: Conditions, etag: str, size: int) -> slice | None:
    """The bytes to send. None: all, which RFC 9110, 14.2 allows for several ranges and requires for an invalid one.

    Raises Problem 416 for a range outside the file."""
    match = re.fullmatch(rf"bytes=([0-9]{{0,{MAX_DIGITS}}})-([0-9]{{0,{MAX_DIGITS}}})", conditions.range.strip())
    if match is None or match[0] == "bytes=-" or (conditions.if_range and conditions.if_range.strip() != etag):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    if start >= end:
        detail = f"the range is outside the file, which has {size:,} bytes"
        raise Problem(416, detail, headers={"Content-Range": f"bytes */{size}"})
    return slice(start, end)


def file_response(file: File, conditions: Conditions, *, cache: str) -> Response:
    """The file, the requested range of it, or 304. `cache`: the Cache-Control header. Raises Problem 416."""
    headers = {"ETag": file.etag, "Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    if file.timings:
        headers["Server-Timing"] = server_timing(file.timings)
    if file.etag.startswith("W/"):
        conditions = Conditions(conditions.if_none_match)  # no ranges
    else:
        headers["Accept-Ranges"] = "bytes"
    if file.data is None or etag_matches(conditions.if_none_match, file.etag):
        return Response(status_code=304, headers=headers)
    selected = requested_range(conditions, file.etag, len(file.data))
    if selected is None:
        return Response(file.data, media_type=file.media_type, headers=headers)
    headers["Content-Range"] = f"bytes {selected.start}-{selected.stop - 1}/{len(file.data)}"
    return Response(file.data[selected], 206, headers, file.media_type)


def server_timing(milliseconds: Mapping[str, float]) -> str:
    """The Server-Timing header (W3C Server Timing)."""
    return ", ".join(f"{step};dur={value:g}" for step, value in milliseconds.items())


def page_headers(*, styles: str) -> dict[str, str]:
    """The security headers of a page: it loads nothing from other servers. `styles`: the allowed sources of styles."""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' blob: data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


class Asset:
    """A file of the page. Clients revalidate it each time, so that files of two versions are never mixed."""

    def __init__(self, data: bytes, media_type: str, headers: Mapping[str, str]) -> None:
        self._data = data
        self._media_type = media_type
        self._headers = {**headers, "Cache-Control": "no-cache", "ETag": f"W/{content_etag(data)}"}

    async def get(self, request: Request) -> Response:
        # A new response for each request: the compression middleware changes its headers.
        if etag_matches(request.headers.get("if-none-match", ""), self._headers["ETag"]):
            return Response(None, 304, self._headers)
        return Response(self._data, media_type=self._media_type, headers=self._headers)
