"""Whose pages may use the API from a browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

import re
from typing import Any

from imgsearch.errors import UsageError
from searcher.http.request_id import REQUEST_ID

SENT = ["Authorization", "Content-Type", "If-None-Match", "If-Range", "Range", REQUEST_ID]
TOLD = ["Content-Range", "ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", REQUEST_ID]
"""Headers of answers that a script of another origin may see."""


def sharing(text: str) -> dict[str, Any] | None:
    """What Starlette's CORSMiddleware is to be told for the setting; None: nothing is shared. Raises UsageError.

    Never with credentials: another site must not search in the name of who is logged in here."""
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[a-z0-9.:\[\]-]+", origin):
            raise UsageError(
                f"IMGSEARCH_SEARCH_CORS_ORIGINS: {origin!r} is no origin; write https://photos.example.com, in small "
                "letters and without a slash at the end, or *"
            )
    if not origins:
        return None
    return {"allow_origins": origins, "allow_methods": ["GET", "POST"], "allow_headers": SENT, "expose_headers": TOLD}
