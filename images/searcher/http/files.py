"""Files as answers: whole, in part, or not at all where the client has them (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from searcher.content.files import File, content_etag, matches
from searcher.search.errors import Problem

FOR_A_WHILE = "private, max-age=300"
"""The same id may show another image after the next run."""
FOR_EVER = "private, max-age=31536000, immutable"
IF_CURRENT = "private, no-cache"
"""Kept, but asked for each time, which costs a 304 as long as there is no other run."""

MAX_DIGITS = 18
"""Of a position in a file: no file is as large, and Python refuses to read thousands of digits."""


@dataclass(frozen=True)
class Conditions:
    """What the client has of a file, and what it wants of it: the headers of these names."""

    known: str = ""
    range: str = ""
    if_range: str = ""


def _conditions(
    known: Annotated[str, Header(alias="If-None-Match", description="ETags of the copies that the client has.")] = "",
    range: Annotated[
        str, Header(description="`bytes=0-99`: only this part, with 206. One part; of several, all.")
    ] = "",
    if_range: Annotated[str, Header(description="The ETag that the part must be of; else the whole is sent.")] = "",
) -> Conditions:
    return Conditions(known, range, if_range)


Conditional = Annotated[Conditions, Depends(_conditions)]


def part(asked: Conditions, etag: str, size: int) -> slice | None:
    """Which bytes are wanted; None: all, as RFC 9110, 14.2 has it for several parts and for what is no valid range.

    Raises Problem 416 where the file has none of them."""
    wanted = re.fullmatch(rf"bytes=([0-9]{{0,{MAX_DIGITS}}})-([0-9]{{0,{MAX_DIGITS}}})", asked.range.strip())
    if wanted is None or wanted[0] == "bytes=-" or (asked.if_range and asked.if_range.strip() != etag):
        return None
    first, last = wanted.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    if start >= end:
        raise Problem(416, f"the file has {size:,} bytes, and none there", headers={"Content-Range": f"bytes */{size}"})
    return slice(start, end)


def answer(file: File, asked: Conditions, *, cache: str) -> Response:
    """The file, the part of it that is asked for, or 304; raises Problem 416. `cache` is its Cache-Control."""
    headers = {"ETag": file.etag, "Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    if file.took:
        headers["Server-Timing"] = server_timing(file.took)
    if file.etag.startswith("W/"):
        asked = Conditions(asked.known)
    else:
        headers["Accept-Ranges"] = "bytes"
    if file.data is None or matches(asked.known, file.etag):
        return Response(status_code=304, headers=headers)
    bytes_ = part(asked, file.etag, len(file.data))
    if bytes_ is None:
        return Response(file.data, media_type=file.media_type, headers=headers)
    headers["Content-Range"] = f"bytes {bytes_.start}-{bytes_.stop - 1}/{len(file.data)}"
    return Response(file.data[bytes_], 206, headers, file.media_type)


def server_timing(took: Mapping[str, float]) -> str:
    """The Server-Timing header of milliseconds by name (W3C Server Timing)."""
    return ", ".join(f"{name};dur={milliseconds:g}" for name, milliseconds in took.items())


class Asset:
    """A file of ours. It is asked for each time, so that a new version is never mixed with an old one."""

    def __init__(self, data: bytes, media_type: str, headers: Mapping[str, str]) -> None:
        self._data = data
        self._media_type = media_type
        self._headers = {**headers, "Cache-Control": "no-cache", "ETag": f"W/{content_etag(data)}"}

    async def get(self, request: Request) -> Response:
        # Made anew for each request: compression changes the headers of the one that it is given.
        if matches(request.headers.get("if-none-match", ""), self._headers["ETag"]):
            return Response(None, 304, self._headers)
        return Response(self._data, media_type=self._media_type, headers=self._headers)
