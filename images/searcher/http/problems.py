"""Every error as RFC 9457 problem JSON: a status, and one sentence that says what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch import logs
from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""What Retry-After says: a restart of the store or the load of a model takes a few seconds."""

MAX_ERRORS = 20
MAX_CHARS = 300
"""Of a field's name and of what is wrong with it: both may quote what was sent, and that may be megabytes."""


class Problem(Exception):
    """A request cannot be answered as it is. `detail` is one sentence for a person."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.errors = errors
        """What is wrong with which field: `{"field", "problem"}` each."""

    def document(self) -> dict[str, Any]:
        """As the client gets it."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **logs.about.get(),  # the request's id: an extension member, as RFC 9457, 3.2 has it
        }
        if self.errors:
            document["errors"] = self.errors
        return document

    def response(self) -> Response:
        return Response(to_json(self.document()), self.status, self.headers, MEDIA_TYPE)


DOCUMENT: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
}
"""The JSON Schema of every problem."""

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


def invalid(field: str, problem: str) -> Problem:
    """A field of the request has a value that cannot be used."""
    return Problem(422, f"{field}: {problem}", errors=[{"field": field, "problem": problem}])


def of_error(error: Exception) -> Problem:
    """The problem that an exception is to the client."""
    match error:
        case Problem():
            return error
        case UsageError():
            return Problem(400, str(error))
        case NotFound():
            return Problem(404, str(error))
        case TemporaryError():
            return Problem(503, str(error), headers={"Retry-After": str(RETRY_SECONDS)})
        case PermanentError():
            return Problem(500, str(error))
        case BadImage():
            return Problem(422, f"the image cannot be used: {error.reason}")
        case HTTPException():
            return Problem(error.status_code, error.detail, headers=error.headers)
    return Problem(500, "something is wrong here, not with the request; the searcher's log says what")


def of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem that pydantic's list of errors is, without the values themselves, which may be huge."""
    first = errors[0]
    if first["type"] == "json_invalid" and isinstance(first["loc"][-1], int):
        return Problem(400, f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    if first["loc"] == ("body",) and first["type"] in ("missing", "model_attributes_type"):
        return Problem(422, "send a JSON object, with Content-Type: application/json")
    listed = [{"field": _field(error["loc"]), "problem": _sentence(error)} for error in errors[:MAX_ERRORS]]
    field, problem = listed[0].values()
    return Problem(422, f"{field}: {problem}" if field else problem, errors=listed)


def _field(location: Sequence[str | int]) -> str:
    """("body", "parts", 0, "text") is shown as parts.0.text."""
    return ".".join(str(step) for step in location[1:])[:MAX_CHARS]


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such field; /docs lists them"
    return str(error["msg"]).removeprefix("Value error, ")[:MAX_CHARS]


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of every kind of error."""
    problem = of_error(error)
    if isinstance(error, HTTPException):
        problem.detail = _sentence_of(error, request)
    if problem.status == 500:
        logger.error("%s %s: %s", request.method, request.url.path, problem.detail)
    return problem.response()


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
            await of_error(error).response()(scope, receive, send)


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
            await too_large.response()(scope, receive, send)
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
