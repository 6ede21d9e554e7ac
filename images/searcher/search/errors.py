"""The errors of the search API as data: a status, a sentence that says what to do, and the invalid fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from imgsearch import logs
from imgsearch.errors import BadImage, NotFound, PermanentError, TemporaryError, UsageError

RETRY_SECONDS = 2
"""The value of Retry-After. A restart of the store, or the load of a model, takes a few seconds."""

MAX_ERRORS = 20
MAX_CHARS = 300
"""Limit of a field's name and of its problem: both may quote the request, which may have megabytes."""


class Problem(Exception):
    """The request fails with this status. `detail` is one sentence for a person."""

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
        """The invalid fields, each as `{"field", "problem"}`."""

    def document(self) -> dict[str, Any]:
        """The problem document that the client gets (RFC 9457)."""
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
    """The problem of a field with an invalid value."""
    return Problem(422, f"{field}: {problem}", errors=[{"field": field, "problem": problem}])


def problem_of_error(error: Exception) -> Problem:
    """The problem that the client gets for an exception."""
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
    return Problem(500, "internal error; see the log of the searcher")


def problem_of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem for a list of pydantic's errors, without the values, which may be large."""
    first = errors[0]
    if first["type"] == "json_invalid" and isinstance(first["loc"][-1], int):
        return Problem(400, f"invalid JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    if first["loc"] == ("body",) and first["type"] in ("missing", "model_attributes_type"):
        return Problem(422, "send a JSON object, with Content-Type: application/json")
    listed = [{"field": _field(error["loc"]), "problem": _sentence(error)} for error in errors[:MAX_ERRORS]]
    field, problem = listed[0].values()
    return Problem(422, f"{field}: {problem}" if field else problem, errors=listed)


def _field(location: Sequence[str | int]) -> str:
    """("body", "parts", 0, "text") becomes parts.0.text."""
    return ".".join(str(step) for step in location[1:])[:MAX_CHARS]


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field; /docs lists the fields"
    return str(error["msg"]).removeprefix("Value error, ")[:MAX_CHARS]
