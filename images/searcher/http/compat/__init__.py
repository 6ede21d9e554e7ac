"""Routes of other servers, so that their clients work here unchanged: what each takes and gives, over our parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from searcher.search.errors import Problem, invalid

TAG = "compatible"


class Lenient(BaseModel):
    """Unlike ours, a request may have fields that mean nothing here: those servers ignore them, too."""

    model_config = ConfigDict(extra="ignore")


@contextmanager
def fields_named(names: Mapping[str, str]) -> Iterator[None]:
    """A problem with one of our fields is told of the client's: `names` is ours to theirs. What comes after a semicolon
    is advice about fields that only we have."""
    try:
        yield
    except Problem as problem:
        wrong = problem.errors[0] if problem.errors else {}
        if wrong.get("field") in names:
            raise invalid(names[wrong["field"]], wrong["problem"].partition(";")[0]) from None
        raise
