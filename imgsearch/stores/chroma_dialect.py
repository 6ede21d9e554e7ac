"""Metadata and filters in Chroma's dialect. No I/O.

It differs from ours in three ways.

Chroma has one set of names for each record, and it refuses a name that is empty or begins with `$`, `#` or `chroma:`.
So our internal fields are stored as one JSON text under the name `_`: each value of its own would be a row in several
indexes of SQLite, and no filter reads them. A name of the source that Chroma refuses, or that begins with `_` or with
the escape itself, is stored with a backslash before it. Each name has one stored form, and no two names share one.

Chroma compares a whole number with a fraction as if the fraction were truncated, so that 4 passes `$gte 4.5`. In lists,
it finds a whole number only as the type that it was stored as: `$contains 4` does not find 4.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from imgsearch.stores.filters import Filter, Joined, Scalar

INTERNAL = "_"
ESCAPE = "\\"
ESCAPED = (INTERNAL, ESCAPE, "$", "#", "chroma:")
"""The beginnings of names that are stored with an escape."""
MAX_OPERANDS = 100
"""Operands of one $and or $or. Chroma chains them, and SQLite limits the depth of an expression to 1000."""


def to_chroma(metadata: Mapping[str, Any], internal: Mapping[str, Any]) -> dict[str, Any]:
    """The source's metadata and the internal fields of a record as Chroma stores them."""
    stored = {_escaped(name): value for name, value in metadata.items()}
    return {**stored, INTERNAL: json.dumps(internal, separators=(",", ":"))} if internal else stored


def from_chroma(stored: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reverse of `to_chroma`. An earlier version stored each internal field, with a `_` before its name."""
    metadata: dict[str, Any] = {}
    internal: dict[str, Any] = {}
    for name, value in (stored or {}).items():
        if name == INTERNAL:
            internal |= json.loads(value)
        elif name.startswith(INTERNAL):
            internal[name.removeprefix(INTERNAL)] = value
        else:
            metadata[name.removeprefix(ESCAPE)] = value
    return metadata, internal


def where(condition: Filter) -> dict[str, Any]:
    """A filter as Chroma reads it."""
    if isinstance(condition, Joined):
        return _joined(f"${condition.join}", [where(part) for part in condition.parts])
    name, operator = _escaped(condition.field), f"${condition.operator}"
    match condition.operator:
        case "in" | "nin":
            return _membership(name, operator, condition.values)
        case "contains" | "not_contains":
            parts = [{name: {operator: value}} for value in _as_both_types(condition.value)]
            return _joined("$or" if operator == "$contains" else "$and", parts)
    if _is_fraction(condition.value):
        return _comparison(name, operator, condition.value)
    return {name: {operator: condition.value}}


def _membership(name: str, operator: str, values: Sequence[Scalar]) -> dict[str, Any]:
    single, joint = ("$eq", "$or") if operator == "$in" else ("$ne", "$and")
    parts = [_comparison(name, single, value) for value in values if _is_fraction(value)]
    if others := [value for value in values if not _is_fraction(value)]:
        parts.append({name: {operator: others}})
    return _joined(joint, parts)


def _joined(operator: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One condition of all parts, nested where there are many."""
    while len(parts) > MAX_OPERANDS:
        chunks = [parts[start : start + MAX_OPERANDS] for start in range(0, len(parts), MAX_OPERANDS)]
        parts = [chunk[0] if len(chunk) == 1 else {operator: chunk} for chunk in chunks]
    return parts[0] if len(parts) == 1 else {operator: parts}


def _comparison(name: str, operator: str, fraction: float) -> dict[str, Any]:
    """A condition that is also right for whole numbers. Towards zero, Chroma's truncation adds or removes one of them;
    a bound that excludes the fraction itself instead of including it, or the reverse, compensates for that."""
    below, above = math.nextafter(fraction, -math.inf), math.nextafter(fraction, math.inf)
    match operator:
        case "$eq":
            return {"$and": [{name: {"$gt": below}}, {name: {"$lt": above}}]}
        case "$ne":
            return {"$or": [{name: {"$ne": fraction}}, {name: {"$eq": int(fraction)}}]}
        case "$gte" if fraction > 0:
            return {name: {"$gt": below}}
        case "$lt" if fraction > 0:
            return {name: {"$lte": below}}
        case "$gt" if fraction < 0:
            return {name: {"$gte": above}}
        case "$lte" if fraction < 0:
            return {name: {"$lt": above}}
    return {name: {operator: fraction}}


def _as_both_types(value: Any) -> list[Any]:
    """The value, and the same number as the other type."""
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**63:
        return [value, int(value)]
    if type(value) is int and float(value) == value:
        return [value, float(value)]
    return [value]


def _is_fraction(value: Any) -> TypeGuard[float]:
    return isinstance(value, float) and not value.is_integer()


def _escaped(name: str) -> str:
    return ESCAPE + name if not name or name.startswith(ESCAPED) else name
