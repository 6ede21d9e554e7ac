"""The limits of the HTTP API that the searcher enforces and the client keeps."""

from __future__ import annotations

MAX_SEARCHES = 64
"""Searches in one /v1/search/batch."""
MAX_EMBEDDED = 64
"""Texts or images in one /v1/embed."""
