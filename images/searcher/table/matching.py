"""The rows of a batch that a filter keeps, with the meaning of imgsearch/stores/filters.py. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgsearch.stores.filters import Comparison, Condition, Filter, Joined, Operator, Scalar, conditions
from searcher.table.columns import column_name
from searcher.table.values import BatchValues, Column

Mask = NDArray[np.bool_]
"""One boolean for each row."""

NEGATED: Mapping[Operator, Operator] = {"ne": "eq", "nin": "in", "not_contains": "contains"}
COMPARE: Mapping[Comparison, Callable[..., Mask]] = {
    "gt": np.greater,
    "gte": np.greater_equal,
    "lt": np.less,
    "lte": np.less_equal,
}
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


def fields(where: Filter) -> set[str]:
    """The metadata fields that a filter reads."""
    return {condition.field for condition in conditions(where)}


def mask(batch: BatchValues, where: Filter) -> Mask:
    """The rows of a batch that pass a filter."""
    if isinstance(where, Joined):
        join = np.logical_and if where.join == "and" else np.logical_or
        return reduce(join, (mask(batch, part) for part in where.parts))
    if where.operator in NEGATED:
        return ~_mask(batch, replace(where, operator=NEGATED[where.operator]))
    return _mask(batch, where)


def _mask(batch: BatchValues, condition: Condition) -> Mask:
    match condition.operator:
        case "gt" | "gte" | "lt" | "lte":
            return _compared(batch, condition.field, condition.operator, condition.value)
    return _equal(batch, condition.field, condition.values, is_list=condition.operator == "contains")


def _compared(batch: BatchValues, field: str, operator: Comparison, number: float) -> Mask:
    passing = np.zeros(len(batch), np.bool_)
    for type, bound in ((int, whole_bound), (float, double_bound)):
        column = batch.get(column_name(field, type))
        if column is not None:
            passing |= _compared_to(column, *bound(operator, number))
    return passing


def _compared_to(column: Column, operator: Comparison, bound: float) -> Mask:
    # An infinite bound is one beyond the numbers of the column.
    values = column.values if math.isfinite(bound) else np.zeros(len(column.values))
    return _of_valid(column, COMPARE[operator](values, bound))


def whole_bound(operator: Comparison, number: float) -> tuple[Comparison, float]:
    """The comparison of whole numbers that means the same as that with `number`; an infinite bound where `number` is
    beyond 64 bits."""
    if isinstance(number, float) and not number.is_integer():
        # 4 is not greater than 4.5 and greater than 3.5, as it is greater or equal to 5 and to 4.
        operator, number = ("gte", math.ceil(number)) if operator in ("gt", "gte") else ("lte", math.floor(number))
    if INT_MIN <= number <= INT_MAX:
        return operator, int(number)
    return operator, math.copysign(math.inf, number)


def double_bound(operator: Comparison, number: float) -> tuple[Comparison, float]:
    """The comparison of doubles that means the same as that with `number`, which may be a whole number between two
    doubles."""
    double = float(number)
    if double > number:
        return ("gte" if operator in ("gt", "gte") else "lt"), double
    if double < number:
        return ("gt" if operator in ("gt", "gte") else "lte"), double
    return operator, double


def _equal(batch: BatchValues, field: str, values: Sequence[Scalar], *, is_list: bool) -> Mask:
    """Rows with one of the values, or with a list that contains one. All values have one type."""
    passing = np.zeros(len(batch), np.bool_)
    kind = type(values[0])
    for column_type in (int, float) if kind in (int, float) else (kind,):
        column = batch.get(column_name(field, column_type, is_list=is_list))
        of_type = _of_type(values, column_type)
        if column is None or not of_type:
            continue
        if column.ends is not None:
            items = np.flatnonzero(_one_of(column, of_type))
            passing[np.searchsorted(column.ends, items, side="right")] = True
        else:
            passing |= _one_of(column, of_type)
    return passing


def _of_type(values: Sequence[Scalar], type: type) -> list[Scalar]:
    """The values as `type`, without those that no value of that type equals."""
    if type is int:
        numbers = cast(Sequence[float], values)
        return [int(value) for value in numbers if value == math.floor(value) and INT_MIN <= value <= INT_MAX]
    if type is float:
        return [float(value) for value in values if float(value) == value]
    return list(values)


def _one_of(column: Column, values: Sequence[Scalar]) -> Mask:
    array = column.array
    if not pa.types.is_dictionary(array.type):
        return _of_valid(column, column.values == values[0]) if len(values) == 1 else _in(array, values)
    (codes,) = np.nonzero(_in(array.dictionary, values))
    if not len(codes):
        return np.zeros(len(array), np.bool_)
    if len(codes) == 1:
        return _of_valid(column, column.values == codes[0])
    is_wanted = np.zeros(len(array.dictionary), np.bool_)
    is_wanted[codes] = True
    return _of_valid(column, is_wanted[column.values])


def _in(array: pa.Array, values: Sequence[Scalar]) -> Mask:
    if len(values) > 1 and 0.0 in values and pa.types.is_floating(array.type):
        values = [*values, 0.0, -0.0]  # is_in compares hashes, and those of the two zeros differ
    wanted = pa.array(values, array.type)
    found = pc.equal(array, wanted[0]) if len(values) == 1 else pc.is_in(array, value_set=wanted)
    if found.null_count:
        found = found.fill_null(False)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _of_valid(column: Column, mask: Mask) -> Mask:
    return mask if column.valid is None else mask & column.valid
