"""Files for clients: their bytes and the ETag of these."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class File:
    """A file for a client."""

    etag: str
    """A weak one, W/"…", where the answer may be compressed: it is then the same content in other bytes."""
    data: bytes | None
    """None: the client has it."""
    media_type: str = "image/webp"
    took: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds, by where they went."""


def content_etag(data: bytes) -> str:
    """A strong ETag: other bytes have another one."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def matches(known: str, etag: str) -> bool:
    """Whether the If-None-Match header `known` has that ETag, weak or strong (RFC 9110, 13.1.2)."""
    return known.strip() == "*" or etag.removeprefix("W/") in re.findall(r'"[^"]*"', known)
