"""Origins whose pages may use the API from a browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

import re
from typing import Any

from imgsearch.errors import UsageError
from searcher.http.request_id import REQUEST_ID

ALLOWED_HEADERS = ["Authorization", "Content-Type", "If-None-Match", "If-Range", "Range", REQUEST_ID]
EXPOSED_HEADERS = [
    *("Content-Range", "ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing"),
    REQUEST_ID,
]
"""Response headers that a script of another origin may read."""


def cors_options(text: str) -> dict[str, Any] | None:
    """The options of Starlette's CORSMiddleware for the setting. None: no origin is allowed. Raises UsageError.

    Credentials are never allowed: another site must not search as the user who is logged in here."""
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[a-z0-9.:\[\]-]+", origin):
            raise UsageError(
                f"IMGSEARCH_SEARCH_CORS_ORIGINS: invalid origin {origin!r}; write https://photos.example.com, in lower "
                "case and without a slash at the end, or *"
            )
    if not origins:
        return None
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ALLOWED_HEADERS,
        "expose_headers": EXPOSED_HEADERS,
    }
