"""The rows of a batch that a filter keeps, with the meaning of imgsearch/stores/filters.py. No I/O.

A condition compares values of one kind: texts, numbers, or booleans. A whole number equals the fraction with its value,
and both are compared exactly. `$contains` is about the items of lists, the other operators are about single values. A
value of another kind and a missing field fail every condition, and so pass its negation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgsearch.stores import Filter
from imgsearch.stores.filters import COMPARISONS, is_join
from imgsearch.stores.records import Scalar
from searcher.table.columns import column_name

Mask = NDArray[np.bool_]
"""One boolean for each row."""

NEGATED = {"$ne": "$eq", "$nin": "$in", "$not_contains": "$contains"}
COMPARE: Mapping[str, Callable[..., pa.Array]] = {
    "$gt": pc.greater,
    "$gte": pc.greater_equal,
    "$lt": pc.less,
    "$lte": pc.less_equal,
}
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


def fields(where: Filter) -> set[str]:
    """The metadata fields that a valid filter reads."""
    ((field, condition),) = where.items()
    if is_join(field, condition):
        return set[str]().union(*map(fields, condition))
    return {field}


def mask(batch: pa.RecordBatch, where: Filter) -> Mask:
    """The rows of a batch that pass a valid filter."""
    ((field, condition),) = where.items()
    if is_join(field, condition):
        join = np.logical_and if field == "$and" else np.logical_or
        return reduce(join, (mask(batch, part) for part in condition))
    if not isinstance(condition, Mapping):
        condition = {"$eq": condition}
    ((operator, operand),) = condition.items()
    if operator in NEGATED:
        return ~_mask(batch, field, NEGATED[operator], operand)
    return _mask(batch, field, operator, operand)


def _mask(batch: pa.RecordBatch, field: str, operator: str, operand: Any) -> Mask:
    if operator in COMPARISONS:
        return _compared(batch, field, operator, operand)
    return _equal(batch, field, operand if operator == "$in" else [operand], is_list=operator == "$contains")


def _compared(batch: pa.RecordBatch, field: str, operator: str, number: float) -> Mask:
    passing = np.zeros(len(batch), np.bool_)
    for type, bound in ((int, whole_bound), (float, double_bound)):
        column = _column(batch, column_name(field, type))
        if column is not None:
            passing |= _compared_to(column, *bound(operator, number))
    return passing


def _compared_to(column: pa.Array, operator: str, bound: float) -> Mask:
    if math.isinf(bound):
        passes_all = (bound < 0) == operator.startswith("$gt")
        return _booleans(column.is_valid()) if passes_all else np.zeros(len(column), np.bool_)
    return _booleans(COMPARE[operator](column, pa.scalar(bound, column.type)))


def whole_bound(operator: str, number: float) -> tuple[str, float]:
    """The comparison of whole numbers that means the same as that with `number`; an infinite bound where `number` is
    beyond 64 bits."""
    if isinstance(number, float) and not number.is_integer():
        # 4 is not greater than 4.5 and greater than 3.5, as it is greater or equal to 5 and to 4.
        operator, number = ("$gte", math.ceil(number)) if operator in ("$gt", "$gte") else ("$lte", math.floor(number))
    if INT_MIN <= number <= INT_MAX:
        return operator, int(number)
    return operator, math.copysign(math.inf, number)


def double_bound(operator: str, number: float) -> tuple[str, float]:
    """The comparison of doubles that means the same as that with `number`, which may be a whole number between two
    doubles."""
    double = float(number)
    if double > number:
        return ("$gte" if operator in ("$gt", "$gte") else "$lt"), double
    if double < number:
        return ("$gt" if operator in ("$gt", "$gte") else "$lte"), double
    return operator, double


def _equal(batch: pa.RecordBatch, field: str, values: Sequence[Scalar], *, is_list: bool) -> Mask:
    """Rows with one of the values, or with a list that contains one. All values have one type."""
    passing = np.zeros(len(batch), np.bool_)
    kind = type(values[0])
    for column_type in (int, float) if kind in (int, float) else (kind,):
        column = _column(batch, column_name(field, column_type, is_list=is_list))
        if column is None:
            continue
        of_type = _of_type(values, column_type)
        if not of_type:
            continue
        if is_list:
            items = np.flatnonzero(_one_of(column.values, of_type))
            passing[np.searchsorted(column.offsets.to_numpy(), items, side="right") - 1] = True
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


def _one_of(column: pa.Array, values: Sequence[Scalar]) -> Mask:
    if not pa.types.is_dictionary(column.type):
        return _in(column, pa.array(values, column.type))
    codes = np.flatnonzero(_in(column.dictionary, pa.array(values, column.type.value_type)))
    if not len(codes):
        return np.zeros(len(column), np.bool_)
    return _in(column.indices, pa.array(codes, column.type.index_type))


def _in(column: pa.Array, values: pa.Array) -> Mask:
    if len(values) == 1:  # many times faster than a lookup of each value
        return _booleans(pc.equal(column, values[0]))
    return _booleans(pc.is_in(column, value_set=values))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    position = batch.schema.get_field_index(name)
    return None if position < 0 else batch.column(position)


def _booleans(array: pa.Array) -> Mask:
    """Null becomes False."""
    if array.null_count:
        array = array.fill_null(False)
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)
