"""JSON that one program writes and another reads: the one way to read it, with every field checked."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from imgsearch.errors import PermanentError

T = TypeVar("T")

MAX_CHARS = 200
"""Of a problem in a message. A damaged document may contain anything."""


class DamagedDocument(PermanentError):
    """A document is not as a program wrote it."""

    def __init__(self, name: str, reason: str, *, advice: str) -> None:
        self.problem = f"{name} is damaged or was changed ({reason})"
        """The document and its damage, without the advice."""
        super().__init__(f"{self.problem}: {advice}")


def validated(type: type[T], data: bytes | str) -> T:
    """The JSON document `data` as a `type`: a dataclass, a TypedDict or a plain type.

    A value of another type is an error, never converted. Raises ValueError with the field and the problem."""
    try:
        return cast(T, _adapter(cast(Hashable, type)).validate_json(data, strict=True))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"][:1].lower() + first["msg"][1:]
        problem = f"field {field}: {message}" if field else message
        raise ValueError(problem[:MAX_CHARS]) from error


def parse(type: type[T], data: bytes | str, name: str, *, advice: str) -> T:
    """`validated`. Raises DamagedDocument, with the name of the document, the field and the problem, followed by
    `advice`: how to get a valid document."""
    try:
        return validated(type, data)
    except ValueError as error:
        raise DamagedDocument(name, str(error), advice=advice) from error


@cache
def _adapter(type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type)
