"""A search from the command line, through the searcher's HTTP API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from imgsearch.errors import TemporaryError, UsageError


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
    raise (TemporaryError if answer.status_code >= 500 else UsageError)(sentence)
