"""Errors of a search as data: a status, one sentence that says what to do, and the fields that are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from imgsearch import logs
from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError

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
            **logs.task_fields.get(),  # the request's id: an extension member, as RFC 9457, 3.2 has it
        }
        if self.errors:
            document["errors"] = self.errors
        return document


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
