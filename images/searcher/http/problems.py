"""Errors as RFC 9457 problem JSON, and the middlewares that answer with one."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searcher.search import errors
from searcher.search.errors import DOCUMENT, Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

SCHEMA: dict[str, Any] = {
    "description": "What is wrong, and what to do about it.",
    "content": {
        MEDIA_TYPE: {
            "schema": DOCUMENT,
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": 'there is no index "photo"; the indexes are: photos',
            },
        }
    },
}
"""The OpenAPI response object of every problem."""


def response(problem: Problem) -> Response:
    return Response(to_json(problem.document()), problem.status, problem.headers, MEDIA_TYPE)


def of_error(error: Exception) -> Problem:
    """The problem that an exception is to the client."""
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, headers=error.headers)
    return errors.of_error(error)


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of every kind of error."""
    problem = of_error(error)
    if isinstance(error, HTTPException):
        problem.detail = _sentence_of(error, request)
    if problem.status == 500:
        logger.error("%s %s: %s", request.method, request.url.path, problem.detail)
    return response(problem)


def _sentence_of(error: HTTPException, request: Request) -> str:
    """What the framework says in a word or two, in a sentence."""
    status = error.status_code
    if isinstance(error.__cause__, UnicodeDecodeError):
        return "the body is not UTF-8"
    if isinstance(error.__cause__, RecursionError):
        return "the body's JSON is nested too deep"
    if status == HTTPStatus.NOT_FOUND:
        return "there is nothing at this path; /docs lists what there is"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not possible at this path; the Allow header says what is"
    return error.detail


class Surprises:
    """Answers what no handler took. Starlette would do so outside of every other part, and such an answer would be
    without CORS headers and its request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            logger.exception("%s %s", scope["method"], scope["path"])
            await response(of_error(error))(scope, receive, send)


class BodyLimit:
    """Refuses a larger body with 413: by its Content-Length at once, else as soon as too much has come."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The connection is closed because the rest of the body is still on its way.
        too_large = Problem(413, f"the body is larger than {self._limit:,} bytes", headers={"Connection": "close"})
        if _content_length(scope) > self._limit:
            await response(too_large)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # FastAPI lets an HTTPException through where it would call any other a parsing error.
                raise HTTPException(413, too_large.detail, headers=dict(too_large.headers or {}))
            return message

        await self._app(scope, limited, send)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
