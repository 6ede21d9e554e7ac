"""Error responses: RFC 9457 problem JSON."""

from __future__ import annotations

import logging
from http import HTTPStatus

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from searcher.search import errors
from searcher.search.errors import Problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


def response(problem: Problem) -> Response:
    return Response(to_json(problem.document()), problem.status, problem.headers, MEDIA_TYPE)


def problem_of_error(error: Exception) -> Problem:
    """The problem that a client gets for an exception."""
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, headers=error.headers)
    return errors.problem_of_error(error)


async def handle(request: Request, error: Exception) -> Response:
    """The exception handler for all kinds of errors."""
    problem = problem_of_error(error)
    if isinstance(error, HTTPException):
        problem.detail = _detail(error, request)
    if problem.status == 500:
        log.error("%s %s: %s", request.method, request.url.path, problem.detail)
    return response(problem)


def _detail(error: HTTPException, request: Request) -> str:
    """A helpful sentence instead of the framework's one or two words."""
    if isinstance(error.__cause__, UnicodeDecodeError):
        return "the body is not UTF-8; encode it as UTF-8"
    if isinstance(error.__cause__, RecursionError):
        return "the JSON of the body is nested too deeply; send a flatter object"
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"this path does not exist; see {request.scope['root_path']}/docs"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"method {request.method} is not allowed for this path; see the Allow header"
    return error.detail
