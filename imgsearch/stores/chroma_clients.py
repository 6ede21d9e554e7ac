"""Clients of Chroma, by the URL of the store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import chromadb
import httpx
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings as ChromaSettings

from imgsearch.errors import TemporaryError, UsageError, first_line

TIMEOUT = httpx.Timeout(60, connect=5)
"""Seconds. A server on a lost node never answers; a server that replays its log after a start is slow."""


def folder(url: str) -> Path | None:
    """The folder of an embedded Chroma; None for another URL."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "chroma+file" and parts.path.startswith("/"):
            return Path(unquote(parts.path))
    return None


def connector(url: str) -> Callable[[], Any]:
    """A function that makes a client; raises UsageError if `url` is invalid."""
    settings = ChromaSettings(anonymized_telemetry=False)
    if path := folder(url):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot create the folder {path}: {error.strerror}") from error
        return partial(_embedded_client, path, settings)
    with suppress(ValueError):  # such as a port that is not a number
        parts = urlsplit(url)
        if parts.scheme in ("chroma+http", "chroma+https") and parts.hostname:
            tls = parts.scheme == "chroma+https"
            return partial(_http_client, url, parts.hostname, parts.port or (443 if tls else 8000), tls, settings)
    raise UsageError(f"invalid store {url!r}: use chroma+file:///folder or chroma+http://host:8000")


def _embedded_client(path: Path, settings: ChromaSettings) -> Any:
    try:
        return chromadb.PersistentClient(path, settings=settings)
    except BaseException:
        # chromadb keeps what it could not start, and would return it to the next call.
        if str(path) not in SharedSystemClient._identifier_to_refcount:
            SharedSystemClient._identifier_to_system.pop(str(path), None)
        raise


def _http_client(url: str, host: str, port: int, tls: bool, settings: ChromaSettings) -> Any:
    address = f"[{host}]" if ":" in host else host
    # Checked first, since chromadb's client has no timeout while it connects.
    httpx.get(f"{'https' if tls else 'http'}://{address}:{port}/api/v2/heartbeat", timeout=TIMEOUT).raise_for_status()
    try:
        client = chromadb.HttpClient(address, port, ssl=tls, settings=settings)
    except ValueError as error:  # chromadb raises it if the server does not answer
        raise TemporaryError(f"Chroma at {url} does not answer: {first_line(error)}") from error
    client._server._session.timeout = TIMEOUT  # chromadb has no setting for it
    return client
