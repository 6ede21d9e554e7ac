"""A Python client of the searcher's HTTP API: one class, for scripts, notebooks and `controller search`.

from imgsearch.client import Client

with Client("http://127.0.0.1:8000") as client:
    for result in client.search("a red bicycle", k=5, filter={"year": {"$gte": 2020}}):
        print(result.score, result.uri)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt

from imgsearch.api import MAX_EMBEDDED, MAX_SEARCHES
from imgsearch.client.queries import Image, Options, Query, Term, image_text, query_body, without_none
from imgsearch.client.results import Index, Page, Result, parse, parse_page
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError
from imgsearch.runs.documents import Facet

__all__ = ["URL", "Client", "Image", "Index", "KeyRefused", "Options", "Page", "Query", "Result", "Term"]

URL = "http://127.0.0.1:8000"
ATTEMPTS = 5
LONGEST_PAUSE = 30.0
"""Seconds. If the searcher asks for a longer pause, the caller gets the error at once."""

T = TypeVar("T")


class KeyRefused(UsageError):
    """Authentication failed (401): the API key is missing or wrong."""


class Client:
    """A connection to one searcher. Any thread may call. As a context manager it closes its connections at the end.

    Every call raises an error of imgsearch.errors with the searcher's message: UsageError for an invalid request
    (KeyRefused without the right key), TemporaryError if a later call may succeed or no server answers, PermanentError
    for a broken searcher. After 429 or 503 a request is retried at the time of Retry-After, up to 5 attempts in all."""

    def __init__(
        self,
        url: str = URL,
        key: str | None = None,
        timeout: float = 60.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key`: the API key, if the searcher needs one. `timeout`: of one request, in seconds."""
        # As bytes: a str must be ASCII here.
        headers = {b"Authorization": b"Bearer " + os.fsencode(key.strip())} if key else None
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._retrying = Retrying(
            retry=retry_if_result(lambda response: _pause(response) is not None),
            wait=_wait,
            stop=stop_after_attempt(ATTEMPTS),
            sleep=sleep,
            retry_error_callback=_last_response,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search(self, text: str | None = None, **query: Unpack[Options]) -> Page:
        """The images nearest to a text, an image, the image at a URL, an image of the index, an embedding, or to the
        weighted sum of `parts`: give exactly one of them."""
        return parse_page(self._post("/v1/search", query_body({"text": text, **query})))

    def pages(self, text: str | None = None, **query: Unpack[Options]) -> Iterator[Page]:
        """All pages of a search, `k` results each, from the same run of the index."""
        while True:
            page = self.search(text, **query)
            yield page
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def batch(self, queries: Iterable[Query]) -> list[Page | ImgsearchError]:
        """The pages of many searches, in their order; for a failed search, its error."""
        pages: list[Page | ImgsearchError] = []
        for chunk in _chunks([*queries], MAX_SEARCHES):
            payload = self._post("/v1/search/batch", {"searches": [query_body(query) for query in chunk]})
            for response in payload["responses"]:
                problem = response.get("problem")
                pages.append(_error(problem["status"], problem["detail"]) if problem else parse_page(response))
        return pages

    def embed(
        self, text: Sequence[str] = (), *, image: Sequence[Image] = (), index: str | None = None
    ) -> list[list[float]]:
        """The vectors of texts or of images, in their order, each of length 1."""
        vectors: list[list[float]] = []
        for field, inputs in (("text", text), ("image", [image_text(file) for file in image])):
            for chunk in _chunks(inputs, MAX_EMBEDDED):
                vectors += self._post("/v1/embed", without_none({field: chunk, "index": index}))["vectors"]
        return vectors

    def facets(self, field: str | None = None, *, index: str | None = None) -> list[Facet]:
        """The values of the metadata fields, or of one field, with their counts, and the range of numbers."""
        facets: list[Facet] = self._get_json("/v1/facets", {"field": field, "index": index})["fields"]
        return facets

    def indexes(self) -> list[Index]:
        """The indexes that the searcher serves."""
        return [parse(Index, payload) for payload in self._get_json("/v1/indexes")["indexes"]]

    def image(self, result: Result | str, *, index: str | None = None) -> bytes:
        """The original file of a result, or of the image with this id."""
        path = result.image if isinstance(result, Result) else _image_path(result)
        return self._file(path, result, index)

    def thumbnail(self, result: Result | str, *, index: str | None = None) -> bytes:
        """The thumbnail (WebP) of a result, or of the image with this id."""
        path = result.thumbnail if isinstance(result, Result) else f"{_image_path(result)}/thumbnail"
        return self._file(path, result, index)

    def _file(self, path: str, result: Result | str, index: str | None) -> bytes:
        # The path of a result names its index.
        params = {} if isinstance(result, Result) else without_none({"index": index})
        return self._request("GET", path, params=params).content

    def _get_json(self, path: str, params: Mapping[str, str | None] | None = None) -> Any:
        return self._json(self._request("GET", path, params=without_none(params or {})))

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json(self._request("POST", path, json=body))

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._retrying(self._http.request, method, path, **request)
        except httpx.HTTPError as error:
            raise TemporaryError(
                f"no searcher answers at {self._http.base_url} ({error}); start one with `controller serve --local`"
            ) from error
        if response.is_success:
            return response
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> ImgsearchError:
        if response.status_code == 401:
            problem = "the API key is wrong" if "authorization" in self._http.headers else "an API key is required"
            return KeyRefused(f"authentication at {self._http.base_url} failed (401): {problem}")
        try:
            return _error(response.status_code, str(response.json()["detail"]))
        except (ValueError, KeyError, TypeError):
            return _error(response.status_code, self._unexpected(response))

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise UsageError(self._unexpected(response)) from error

    def _unexpected(self, response: httpx.Response) -> str:
        return f"unexpected response {response.status_code} from {self._http.base_url}: is it an imgsearch searcher?"


def _error(status: int, message: str) -> ImgsearchError:
    if status == 500:
        return PermanentError(message)
    return (TemporaryError if status == 429 or status > 500 else UsageError)(message)


def _pause(response: httpx.Response, attempt: int = 1) -> float | None:
    """Seconds until the next attempt; None for a response that no retry changes."""
    if response.status_code not in (429, 503):
        return None
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):  # a proxy may send a date, or no such header
        seconds = 0.5 * 2.0**attempt
    return seconds if seconds <= LONGEST_PAUSE else None


def _wait(state: RetryCallState) -> float:
    return _pause(_last_response(state), state.attempt_number) or 0.0


def _last_response(state: RetryCallState) -> httpx.Response:
    assert state.outcome is not None
    response: httpx.Response = state.outcome.result()
    return response


def _image_path(id: str) -> str:
    return f"/v1/images/{quote(id, safe='')}"


def _chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
