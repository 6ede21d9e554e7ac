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

from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError
from imgsearch.runs.layout import Facet

URL = "http://127.0.0.1:8000"
AT_ONCE = 64
"""Searches of one /v1/search/batch, and texts or images of one /v1/embed."""
TRIES = 5
LONGEST_PAUSE = 30.0
"""Seconds. Who is told to come back later than that should know it, and not wait."""

T = TypeVar("T")
Image = str | os.PathLike[str] | bytes
"""A file's path, or what is in it."""


class Term(TypedDict, total=False):
    """What to look for: one of the first five."""

    text: str
    image: Image
    image_url: str
    """Where the searcher shall fetch an image."""
    id: str
    """An image of the index."""
    embedding: Sequence[float]
    weight: float
    """Of a part: 1 where it is not given; negative: away from it."""


class Options(TypedDict, total=False):
    """What a search takes beside a text."""

    image: Image | None
    image_url: str | None
    id: str | None
    embedding: Sequence[float] | None
    parts: Sequence[Term] | None
    k: int
    """How many results, or results a page (10)."""
    filter: Mapping[str, Any] | None
    """With Chroma's operators: `{"year": {"$gte": 2020}}`."""
    min_score: float | None
    dedupe: float | None
    """Results whose cosine with a better one is at least this are folded into it; 0.97 or so for near-duplicates."""
    index: str | None
    """Not needed where there is only one."""
    include: Sequence[str]
    """`metadata` (what there is without this), `embedding`."""
    cursor: str | None
    """`next_cursor` of the page before."""


class Query(Options, total=False):
    """A search: what to look for, once or as weighted `parts`, and how much of what is found to give."""

    text: str | None


@dataclass(frozen=True)
class Result:
    """One image that was found."""

    id: str
    score: float
    """Cosine similarity, from -1 to 1."""
    uri: str
    """Where the source keeps the image."""
    image: str
    """Path of the original on the server, for `Client.image`."""
    thumbnail: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedding: Sequence[float] = ()
    duplicates: Sequence[str] = ()
    """Ids of the results that were folded into it."""


@dataclass(frozen=True)
class Page:
    """The results of one search, best first; iterating gives them."""

    results: Sequence[Result]
    next_cursor: str | None
    """None: this was the last page."""
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
    """The searcher wants an API key, or another one than it got."""


class Client:
    """One searcher. Any thread may call; a context manager, which closes its connections.

    Every call raises an error of imgsearch.errors, with the searcher's own sentence: UsageError where what was asked
    cannot be answered (KeyRefused for want of the right key), TemporaryError where it may be later, or where nothing
    answers at all, PermanentError where the searcher is broken. After an answer 429 or 503 the request is repeated a
    few times, when its Retry-After says."""

    def __init__(
        self,
        url: str = URL,
        key: str | None = None,
        timeout: float = 60.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key` is the searcher's API key, where it has one; `timeout` are seconds of one request."""
        # As bytes: a str must be ASCII here.
        headers = {b"Authorization": b"Bearer " + os.fsencode(key.strip())} if key else None
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._sleep = sleep

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
        """One page of `k` results after the other, all of the same run of the index."""
        while True:
            page = self.search(text, **query)
            yield page
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def batch(self, queries: Iterable[Query]) -> list[Page | ImgsearchError]:
        """The answers of many searches in their order; one that cannot be answered has its error in its place."""
        answers: list[Page | ImgsearchError] = []
        for some in _chunks([*queries]):
            told = self._post("/v1/search/batch", {"searches": [_body(query) for query in some]})
            for each in told["responses"]:
                problem = each.get("problem")
                answers.append(_error(problem["status"], problem["detail"]) if problem else _page(each))
        return answers

    def embed(
        self, text: Sequence[str] = (), *, image: Sequence[Image] = (), index: str | None = None
    ) -> list[list[float]]:
        """The vectors of texts or of images, in their order, each of length 1."""
        vectors: list[list[float]] = []
        for name, chunks in (("text", _chunks(text)), ("image", _chunks([_base64(each) for each in image]))):
            for some in chunks:
                vectors += self._post("/v1/embed", _given({name: some, "index": index}))["vectors"]
        return vectors

    def facets(self, field: str | None = None, *, index: str | None = None) -> list[Facet]:
        """What the fields of the metadata hold, or one of them: values and how often, the range of numbers."""
        told: list[Facet] = self._get_json("/v1/facets", {"field": field, "index": index})["fields"]
        return told

    def indexes(self) -> list[Index]:
        """What is served."""
        return [_made(Index, each) for each in self._get_json("/v1/indexes")["indexes"]]

    def image(self, of: Result | str, *, index: str | None = None) -> bytes:
        """The original of a result or of the image with this id, as it is in its source."""
        return self._picture(of, "image", f"/v1/images/{_quoted(of)}", index)

    def thumbnail(self, of: Result | str, *, index: str | None = None) -> bytes:
        """A small WebP of a result or of the image with this id."""
        return self._picture(of, "thumbnail", f"/v1/images/{_quoted(of)}/thumbnail", index)

    def _picture(self, of: Result | str, name: str, path: str, index: str | None) -> bytes:
        if isinstance(of, Result):
            return self._request("GET", getattr(of, name)).content  # the path names its index
        return self._request("GET", path, params=_given({"index": index})).content

    def _get_json(self, path: str, params: Mapping[str, str | None] | None = None) -> Any:
        return self._json(self._request("GET", path, params=_given(params or {})))

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json(self._request("POST", path, json=body))

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        tried = 0
        while True:
            try:
                answer = self._http.request(method, path, **request)
            except httpx.HTTPError as error:
                raise TemporaryError(
                    f"no searcher answers at {self._http.base_url} ({error}); start one with `controller serve --local`"
                ) from error
            if answer.is_success:
                return answer
            tried += 1
            pause = _pause(answer, tried)
            if pause is None or tried == TRIES:
                raise self._refusal(answer)
            self._sleep(pause)

    def _refusal(self, answer: httpx.Response) -> ImgsearchError:
        if answer.status_code == 401:
            wrong = "authorization" in self._http.headers
            return KeyRefused(f"{self._http.base_url} {'does not know this' if wrong else 'wants its'} API key")
        try:
            return _error(answer.status_code, str(answer.json()["detail"]))
        except (ValueError, KeyError, TypeError):
            return _error(answer.status_code, self._stranger(answer))

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise UsageError(self._stranger(answer)) from error

    def _stranger(self, answer: httpx.Response) -> str:
        return f"{self._http.base_url} answered {answer.status_code}: is it an imgsearch searcher?"


def _error(status: int, sentence: str) -> ImgsearchError:
    if status == 500:
        return PermanentError(sentence)
    return (TemporaryError if status == 429 or status > 500 else UsageError)(sentence)


def _pause(answer: httpx.Response, tried: int) -> float | None:
    """How many seconds to wait before the same request; None: to repeat it is of no use."""
    if answer.status_code not in (429, 503):
        return None
    try:
        seconds = float(answer.headers["Retry-After"])
    except (KeyError, ValueError):  # a proxy's, say, with a date or nothing
        seconds = 0.5 * 2.0**tried
    return seconds if seconds <= LONGEST_PAUSE else None


def _page(told: Mapping[str, Any]) -> Page:
    return _made(Page, {**told, "results": [_made(Result, each) for each in told["results"]]})


def _made(kind: type[T], told: Mapping[str, Any]) -> T:
    """Of what a newer searcher says beyond it, nothing is taken."""
    names = {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in told.items() if name in names})


def _body(query: Query) -> dict[str, Any]:
    """The query as JSON has it."""
    body = _given(query)
    if "image" in body:
        body["image"] = _base64(body["image"])
    if "parts" in body:
        body["parts"] = [_body(part) for part in body["parts"]]
    return body


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _base64(image: Image) -> str:
    data = image if isinstance(image, bytes) else Path(image).expanduser().read_bytes()
    return b64encode(data).decode()


def _quoted(of: Result | str) -> str:
    return quote(of.id if isinstance(of, Result) else of, safe="")


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
