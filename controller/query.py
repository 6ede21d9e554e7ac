"""A search from the command line, through the searcher's HTTP API."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import httpx

from imgsearch.errors import TemporaryError, UsageError

KEY_VARIABLE = "IMGSEARCH_API_KEY"
"""Where the searcher's API key is looked for; never on the command line, which other users of the machine can read."""


def connect(url: str, *, key: str | None) -> httpx.Client:
    """A client of the searcher at `url`, with its API key where it has one."""
    # As bytes: a str must be ASCII here.
    headers = {b"Authorization": b"Bearer " + os.fsencode(key.strip())} if key else None
    return httpx.Client(base_url=url, headers=headers, timeout=60)


def find(client: httpx.Client, query: str, *, k: int, index: str | None) -> dict[str, Any]:
    """Searches by the image file that `query` names, or else by its text; returns the API's answer.

    Raises UsageError with the API's own sentence, TemporaryError where nothing answers."""
    told: dict[str, Any] = {"k": k, **({"index": index} if index else {})}
    try:
        if re.match(r"~|\.{0,2}/", query) and not Path(query).expanduser().is_file():
            raise UsageError(f"there is no file {query}")
        if Path(query).expanduser().is_file():
            with Path(query).expanduser().open("rb") as file:
                answer = client.post("/v1/search/image", files={"file": file}, data=told)
        else:
            answer = client.post("/v1/search", json={"text": query, **told})
    except httpx.HTTPError as error:
        raise TemporaryError(
            f"no searcher answers at {client.base_url} ({error}); start one with `controller serve --local`"
        ) from error
    if answer.is_success:
        return answer.json()  # type: ignore[no-any-return]
    try:
        sentence = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        sentence = f"{client.base_url} answered {answer.status_code}: is it an imgsearch searcher?"
    if answer.status_code == 401:
        wrong = "authorization" in client.headers
        raise UsageError(
            f"{client.base_url} does not know the API key in {KEY_VARIABLE}: ask whoever runs it for the right one"
            if wrong
            else f"{client.base_url} wants its API key: set {KEY_VARIABLE} to it"
        )
    raise (TemporaryError if answer.status_code >= 500 else UsageError)(sentence)
