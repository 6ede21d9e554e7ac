"""OpenAPI objects that several routes share: responses and headers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from searcher.http import api_keys, problems
from searcher.http.request_id import REQUEST_ID
from searcher.search.errors import DOCUMENT

Responses = dict[int | str, dict[str, Any]]
"""OpenAPI response objects by status."""


def header(description: str, *, type: str = "string") -> dict[str, Any]:
    """The OpenAPI header object."""
    return {"description": description, "schema": {"type": type}}


def problem(description: str, status: int, detail: str) -> dict[str, Any]:
    """The OpenAPI response object of a problem, with `detail` in its example."""
    title = HTTPStatus(status).phrase
    example = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    content = {problems.MEDIA_TYPE: {"schema": DOCUMENT, "example": example}}
    return {"description": description, "content": content}


PROBLEM = problem(
    "The reason of the error, and the way to fix it.", 404, 'index "photo" does not exist; available: photos'
)
GONE: Responses = {
    410: problem(
        "The requested run was deleted, because newer ones were published.",
        410,
        'run "r1" of index "photos" was deleted; search again without `cursor` and `run`',
    )
}
UNAUTHORIZED: Responses = {
    401: {
        **problem("The API key is missing or invalid.", 401, api_keys.MISSING),
        "headers": {"WWW-Authenticate": header("`Bearer`.")},
    }
}
TOO_MANY_REQUESTS: Responses = {
    429: {
        **problem(
            "The rate limit of this client is exceeded, or the queue of the model is full. Try again after "
            "`Retry-After` seconds.",
            429,
            "rate limit exceeded: 20 per 1 second; try again in 1 s",
        ),
        "headers": {
            "Retry-After": header("Seconds.", type="integer"),
            "RateLimit": header("With a rate limit: remaining requests, and seconds until the limit resets."),
            "RateLimit-Policy": header("With a rate limit: allowed requests, and the length of the window in seconds."),
        },
    }
}
COMMON_HEADERS = {
    REQUEST_ID: header("The id from the request, if it has up to 128 visible ASCII characters; else a new one."),
    "Server-Timing": header("Milliseconds by step: `encode;dur=12.1, total;dur=14`."),
}
_CACHING = {
    "ETag": header("For If-None-Match and If-Range."),
    "Cache-Control": header("How long the response may be cached."),
}
_NOT_MODIFIED = {"description": "The client's copy, named in If-None-Match, is current.", "headers": _CACHING}


def file(media_type: str) -> Responses:
    """The responses of a route that serves a file."""
    content = {media_type: {"schema": {"type": "string", "contentMediaType": media_type}}}
    ranges = {"Accept-Ranges": header("`bytes`: the client may request a range.")}
    return {
        200: {"content": content, "headers": {**_CACHING, **ranges}},
        206: {
            "description": "The requested range.",
            "content": content,
            "headers": {**_CACHING, **ranges, "Content-Range": header("The range, and the size of the file in bytes.")},
        },
        304: _NOT_MODIFIED,
        416: {
            **problem("The range is outside the file.", 416, "the range is outside the file, which has 2,048 bytes"),
            "headers": {"Content-Range": header("The size of the file in bytes.")},
        },
    }


def cached_json(model: type[BaseModel]) -> Responses:
    """The responses of a route that serves a JSON document with an ETag."""
    return {200: {"model": model, "headers": _CACHING}, 304: _NOT_MODIFIED}


def add_common_headers(app: FastAPI) -> None:
    """Adds the headers that middlewares set on every response to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in generate()["paths"].values():
                for operation in path.values():
                    for response in operation["responses"].values():
                        response["headers"] = {**COMMON_HEADERS, **response.get("headers", {})}
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
