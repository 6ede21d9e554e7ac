"""Error responses: RFC 9457 problem JSON."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

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
                "detail": 'there is no index "photo"; there is: photos',
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
