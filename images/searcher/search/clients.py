"""The client of a request: whom the limits for each client count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Client:
    """The client of a request."""

    name: str
    """The name of its API key, or its address."""
    charge: Callable[[int], None]
    """Counts this number of queries against the client's rate limit. Raises Problem where they exceed it."""
