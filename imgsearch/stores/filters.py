"""The grammar of metadata filters, the same for every store: $eq $ne $gt $gte $lt $lte $in $nin $contains $not_contains
$and $or. A store translates them if its own operators differ.

Any text is a field, since a source may have any names. A field whose name is that of an operator needs a condition with
an operator: `{"$and": {"$eq": 1}}` is about the field `$and`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

COMPARISONS = ("$gt", "$gte", "$lt", "$lte")
SCALARS = ("$eq", "$ne", "$contains", "$not_contains")
LISTS = ("$in", "$nin")
OPERATORS = (*SCALARS[:2], *COMPARISONS, *LISTS, *SCALARS[2:])
JOINS = ("$and", "$or")

MAX_DEPTH = 8
MAX_VALUES = 1_000
"""The most values in all conditions together: the store looks up each of them."""


def check(where: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns `where`; raises ValueError, with one sentence for the user, if it is not a filter."""
    if _values(where, MAX_DEPTH) > MAX_VALUES:
        raise ValueError(f"compare with at most {MAX_VALUES:,} values")
    return where


def is_join(field: str, condition: Any) -> bool:
    """Whether this pair of a valid filter joins filters, and is not a condition on a field."""
    return field in JOINS and isinstance(condition, list)


def _values(where: Any, depth: int) -> int:
    """The number of values in the filter."""
    if not isinstance(where, Mapping) or len(where) != 1:
        raise ValueError('give one field or operator, such as {"label": "cat"}; join several with $and or $or')
    if depth == 0:
        raise ValueError(f"nest $and and $or at most {MAX_DEPTH} deep")
    ((field, condition),) = where.items()
    if field in JOINS and not _has_operator(condition):
        if not isinstance(condition, list) or len(condition) < 2:
            raise ValueError(f"{field} takes a list of two or more filters")
        return sum(_values(part, depth - 1) for part in condition)
    _text(field)
    if field in OPERATORS and not _has_operator(condition):
        raise ValueError(f'{field!r} is not a field; give the operator to a field, such as {{"label": {{"$eq": 3}}}}')
    if field.startswith("$") and isinstance(condition, Mapping) and not _has_operator(condition):
        raise ValueError(f"{field!r} is not a field; only $and and $or may replace a field")
    return _condition(field, condition)


def _has_operator(condition: Any) -> bool:
    return isinstance(condition, Mapping) and not condition.keys().isdisjoint(OPERATORS)


def _condition(field: str, condition: Any) -> int:
    if not isinstance(condition, Mapping):
        condition = {"$eq": condition}
    if len(condition) != 1:
        raise ValueError(f'give {field} one operator, such as {{"$gte": 3}}; join several with $and')
    ((operator, operand),) = condition.items()
    if operator not in OPERATORS:
        raise ValueError(f"{field} has the unknown operator {_text(operator)!r}; known are {', '.join(OPERATORS)}")
    if operator in LISTS:
        if not isinstance(operand, list) or not operand or len({type(_scalar(field, value)) for value in operand}) > 1:
            raise ValueError(f"{operator} of {field} takes a list of values of one type")
        return len(operand)
    _scalar(field, operand)
    if operator in COMPARISONS and (isinstance(operand, str | bool)):
        raise ValueError(f"{operator} of {field} takes a number")
    return 1


def _scalar(field: str, value: Any) -> Any:
    match value:
        case bool():
            return value
        case str():
            return _text(value)
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
    raise ValueError(f"{field} can be compared with a text, a number of at most 64 bits, true or false")


def _text(value: str) -> str:
    """JSON may contain half a surrogate pair, which no store can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a text in it is not valid Unicode") from None
    return value
