"""Filters on metadata: a small tree, which each store compiles into its own language, and the grammar of their JSON.

The grammar has the operators $eq $ne $gt $gte $lt $lte $in $nin $contains $not_contains, and $and $or. Any text is a
field, since a source may have any names. A field whose name is that of an operator needs a condition with an operator:
`{"$and": {"$eq": 1}}` is about the field `$and`.

A condition compares values of one kind: texts, numbers, or booleans. A whole number equals the fraction with its value.
`contains` is about the items of lists, the other operators are about single values. A value of another kind and a
missing field fail every condition, and so pass its negation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Scalar = str | int | float | bool
Comparison = Literal["gt", "gte", "lt", "lte"]
Operator = Literal["eq", "ne", Comparison, "in", "nin", "contains", "not_contains"]
Join = Literal["and", "or"]

COMPARISONS = get_args(Comparison)
LISTS = ("in", "nin")
OPERATORS = {f"${operator}": operator for operator in get_args(Operator)}
JOINS: Mapping[str, Join] = {"$and": "and", "$or": "or"}

MAX_DEPTH = 8
MAX_VALUES = 1_000
"""The most values in all conditions together: the store looks up each of them."""


@dataclass(frozen=True)
class Condition:
    """A condition on one field."""

    field: str
    operator: Operator
    values: tuple[Scalar, ...]
    """Of one type. Only `in` and `nin` have more than one."""

    @property
    def value(self) -> Any:
        """The first value."""
        return self.values[0]


@dataclass(frozen=True)
class Joined:
    """All of the parts (`and`), or at least one of them."""

    join: Join
    parts: tuple[Filter, ...]


Filter = Condition | Joined


def parse(where: Mapping[str, Any]) -> Filter:
    """The filter that JSON describes. Raises ValueError, with one sentence for the user, if it is not one."""
    parsed = _filter(where, MAX_DEPTH)
    if sum(len(condition.values) for condition in conditions(parsed)) > MAX_VALUES:
        raise ValueError(f"compare with at most {MAX_VALUES:,} values")
    return parsed


def conditions(where: Filter) -> Iterator[Condition]:
    """All conditions of a filter."""
    if isinstance(where, Condition):
        yield where
    else:
        for part in where.parts:
            yield from conditions(part)


def _filter(where: Any, depth: int) -> Filter:
    if not isinstance(where, Mapping) or len(where) != 1:
        raise ValueError('give one field or operator, such as {"label": "cat"}; join several with $and or $or')
    if depth == 0:
        raise ValueError(f"nest $and and $or at most {MAX_DEPTH} deep")
    ((field, condition),) = where.items()
    if field in JOINS and not _has_operator(condition):
        if not isinstance(condition, list) or len(condition) < 2:
            raise ValueError(f"{field} takes a list of two or more filters")
        return Joined(JOINS[field], tuple(_filter(part, depth - 1) for part in condition))
    _text(field)
    if field in OPERATORS and not _has_operator(condition):
        raise ValueError(f'{field!r} is not a field; give the operator to a field, such as {{"label": {{"$eq": 3}}}}')
    if field.startswith("$") and isinstance(condition, Mapping) and not _has_operator(condition):
        raise ValueError(f"{field!r} is not a field; only $and and $or may replace a field")
    return _condition(field, condition)


def _has_operator(condition: Any) -> bool:
    return isinstance(condition, Mapping) and not condition.keys().isdisjoint(OPERATORS)


def _condition(field: str, condition: Any) -> Condition:
    if not isinstance(condition, Mapping):
        condition = {"$eq": condition}
    if len(condition) != 1:
        raise ValueError(f'give {field} one operator, such as {{"$gte": 3}}; join several with $and')
    ((name, operand),) = condition.items()
    if name not in OPERATORS:
        raise ValueError(f"{field} has the unknown operator {_text(name)!r}; known are {', '.join(OPERATORS)}")
    operator = OPERATORS[name]
    if operator in LISTS:
        if not isinstance(operand, list) or not operand or len({type(_scalar(field, value)) for value in operand}) > 1:
            raise ValueError(f"{name} of {field} takes a list of values of one type")
        return Condition(field, operator, tuple(operand))
    value = _scalar(field, operand)
    if operator in COMPARISONS and isinstance(value, str | bool):
        raise ValueError(f"{name} of {field} takes a number")
    return Condition(field, operator, (value,))


def _scalar(field: str, value: Any) -> Scalar:
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
