"""A Python client of the searcher's HTTP API: one class, for scripts, notebooks and `controller search`.

from imgsearch.client import Client

with Client("http://127.0.0.1:8000") as client:
    for result in client.search("a red bicycle", k=5, filter={"year": {"$gte": 2020}}):
        print(result.score, result.uri)
"""

from __future__ import annotations

import dataclasses
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt

from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError
from imgsearch.runs.documents import Facet

URL = "http://127.0.0.1:8000"
AT_ONCE = 64
"""Searches in one /v1/search/batch, and texts or images in one /v1/embed."""
ATTEMPTS = 5
LONGEST_PAUSE = 30.0
"""Seconds. If the searcher asks for a longer pause, the caller gets the error at once."""

T = TypeVar("T")
Image = str | os.PathLike[str] | bytes
"""The path of a file, or its bytes."""


class Term(TypedDict, total=False):
    """One part of a query: exactly one of the first five fields."""

    text: str
    image: Image
    image_url: str
    """The searcher fetches this image."""
    id: str
    """An image of the index."""
    embedding: Sequence[float]
    weight: float
    """Default: 1. A negative weight moves results away from this part."""


class Options(TypedDict, total=False):
    """The arguments of a search beside its text."""

    image: Image | None
    image_url: str | None
    id: str | None
    embedding: Sequence[float] | None
    parts: Sequence[Term] | None
    k: int
    """Results in a page. Default: 10."""
    filter: Mapping[str, Any] | None
    """A filter with Chroma's operators: `{"year": {"$gte": 2020}}`."""
    min_score: float | None
    dedupe: float | None
    """Results whose cosine with a better result is at least this are merged into it; about 0.97 for near-duplicates."""
    index: str | None
    """Needed only if the searcher serves several."""
    include: Sequence[str]
    """`metadata`, `embedding`. Default: `metadata`."""
    cursor: str | None
    """`next_cursor` of the previous page."""


class Query(Options, total=False):
    """One search of a batch: its text or parts, and its options."""

    text: str | None


@dataclass(frozen=True)
class Result:
    """One found image."""

    id: str
    score: float
    """Cosine similarity, from -1 to 1."""
    uri: str
    """The image in its source."""
    image: str
    """Path of the original on the server, for `Client.image`."""
    thumbnail: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedding: Sequence[float] = ()
    duplicates: Sequence[str] = ()
    """Ids of the results that were merged into this one."""


@dataclass(frozen=True)
class Page:
    """The results of one search, best first. Iterate over the page to get them."""

    results: Sequence[Result]
    next_cursor: str | None
    """None on the last page."""
    index: str
    run: str
    model: str
    took_ms: Mapping[str, float]
    """`encode`, `store` and `total`."""

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True)
class Index:
    """One index that is served."""

    index: str
    run: str
    model: str
    dim: int
    images: int
    source: str
    published: str
    """UTC, ISO 8601."""


class KeyRefused(UsageError):
    """Authentication failed (401): the API key is missing or wrong."""


class Client:
    """One searcher. Any thread may call; a context manager, which closes its connections.

    Every call raises an error of imgsearch.errors with the searcher's message: UsageError for an invalid request
    (KeyRefused without the right key), TemporaryError if a later call may succeed or no server answers, PermanentError
    for a broken searcher. After 429 or 503 a request is retried when Retry-After says, 5 attempts in all."""

    def __init__(
        self,
        url: str = URL,
        key: str | None = None,
        timeout: float = 60.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key`: an API key of the searcher, if it needs one. `timeout`: of one request, in seconds."""
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
        return _page(self._post("/v1/search", _body({"text": text, **query})))

    def pages(self, text: str | None = None, **query: Unpack[Options]) -> Iterator[Page]:
        """All pages of a search, `k` results each, from the same run of the index."""
        while True:
            page = self.search(text, **query)
            yield page
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def batch(self, queries: Iterable[Query]) -> list[Page | ImgsearchError]:
        """The pages of many searches, in their order; a failed search has its error in its place."""
        pages: list[Page | ImgsearchError] = []
        for chunk in _chunks([*queries]):
            payload = self._post("/v1/search/batch", {"searches": [_body(query) for query in chunk]})
            for response in payload["responses"]:
                problem = response.get("problem")
                pages.append(_error(problem["status"], problem["detail"]) if problem else _page(response))
        return pages

    def embed(
        self, text: Sequence[str] = (), *, image: Sequence[Image] = (), index: str | None = None
    ) -> list[list[float]]:
        """The vectors of texts or of images, in their order, each of length 1."""
        vectors: list[list[float]] = []
        for name, chunks in (("text", _chunks(text)), ("image", _chunks([_base64(file) for file in image]))):
            for chunk in chunks:
                vectors += self._post("/v1/embed", _without_none({name: chunk, "index": index}))["vectors"]
        return vectors

    def facets(self, field: str | None = None, *, index: str | None = None) -> list[Facet]:
        """The values of the metadata fields, or of one field, with their counts, and the range of numbers."""
        facets: list[Facet] = self._get_json("/v1/facets", {"field": field, "index": index})["fields"]
        return facets

    def indexes(self) -> list[Index]:
        """The indexes that the searcher serves."""
        return [_parsed(Index, payload) for payload in self._get_json("/v1/indexes")["indexes"]]

    def image(self, of: Result | str, *, index: str | None = None) -> bytes:
        """The original file of a result, or of the image with this id."""
        return self._picture(of, "image", f"/v1/images/{_quoted(of)}", index)

    def thumbnail(self, of: Result | str, *, index: str | None = None) -> bytes:
        """The thumbnail (WebP) of a result, or of the image with this id."""
        return self._picture(of, "thumbnail", f"/v1/images/{_quoted(of)}/thumbnail", index)

    def _picture(self, of: Result | str, name: str, path: str, index: str | None) -> bytes:
        if isinstance(of, Result):
            return self._request("GET", getattr(of, name)).content  # the path names its index
        return self._request("GET", path, params=_without_none({"index": index})).content

    def _get_json(self, path: str, params: Mapping[str, str | None] | None = None) -> Any:
        return self._json(self._request("GET", path, params=_without_none(params or {})))

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


def _error(status: int, sentence: str) -> ImgsearchError:
    if status == 500:
        return PermanentError(sentence)
    return (TemporaryError if status == 429 or status > 500 else UsageError)(sentence)


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


def _page(payload: Mapping[str, Any]) -> Page:
    return _parsed(Page, {**payload, "results": [_parsed(Result, result) for result in payload["results"]]})


def _parsed(kind: type[T], payload: Mapping[str, Any]) -> T:
    """Ignores the fields that a newer searcher adds."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in payload.items() if name in names})


def _body(query: Query) -> dict[str, Any]:
    """The JSON object of a query."""
    body = _without_none(query)
    if "image" in body:
        body["image"] = _base64(body["image"])
    if "parts" in body:
        body["parts"] = [_body(part) for part in body["parts"]]
    return body


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _base64(image: Image) -> str:
    data = image if isinstance(image, bytes) else Path(image).expanduser().read_bytes()
    return b64encode(data).decode()


def _quoted(of: Result | str) -> str:
    return quote(of.id if isinstance(of, Result) else of, safe="")


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
