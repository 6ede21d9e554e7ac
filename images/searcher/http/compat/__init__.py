"""Routes of other servers, so that their clients work with this one unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from searcher.search.errors import Problem, invalid

TAG = "compatible"


class Lenient(BaseModel):
    """A request that may have unknown fields, unlike a request to /v1: the other servers ignore them, too."""

    model_config = ConfigDict(extra="ignore")


@contextmanager
def fields_named(names: Mapping[str, str]) -> Iterator[None]:
    """Reports a problem under the client's name of the field. `names`: from the name in /v1 to the client's. Text
    after a semicolon is left out, because it is advice about fields that only /v1 has."""
    try:
        yield
    except Problem as problem:
        error = problem.errors[0] if problem.errors else {}
        if error.get("field") in names:
            raise invalid(names[error["field"]], error["problem"].partition(";")[0]) from None
        raise
