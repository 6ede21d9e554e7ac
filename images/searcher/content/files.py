"""Files for clients: their bytes and their ETags."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class File:
    """A file for a client."""

    etag: str
    """A weak ETag, W/"…", where the response may be compressed: the same content, in other bytes."""
    data: bytes | None
    """None: the client has a current copy."""
    media_type: str = "image/webp"
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by step."""


def content_etag(data: bytes) -> str:
    """A strong ETag: other bytes get another one."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header has that ETag, weak or strong (RFC 9110, 13.1.2)."""
    return if_none_match.strip() == "*" or etag.removeprefix("W/") in re.findall(r'"[^"]*"', if_none_match)
