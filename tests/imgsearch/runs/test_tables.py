"""The tables of a plan."""

from __future__ import annotations

import pyarrow as pa
import pytest

from imgsearch.errors import PermanentError
from imgsearch.runs import tables


def test_a_plan_with_row_groups_is_read_as_one_with_units() -> None:
    """Plans had Parquet's columns before version 0.1.0."""
    columns = {"size": [9, 9], "etag": ["", ""], "images": [1, 5], "metadata": ["{}", "{}"]}
    groups = {"row_group": pa.array([-1, 3], pa.int32()), "first_row": pa.array([0, 7])}
    table = tables.items_from_bytes(
        tables.to_bytes(pa.table({"key": ["a.jpg", "b.parquet"], **columns, **groups})), "plan"
    )
    assert [(row["key"], row["unit"], row["first"], row["images"]) for row in table.to_pylist()] == [
        ("a.jpg", 0, 0, 1),
        ("b.parquet", 3, 7, 5),
    ]


def test_a_damaged_table_is_named() -> None:
    with pytest.raises(PermanentError, match=r"plan/00000\.parquet"):
        tables.items_from_bytes(b"PAR1", "runs/r1/plan/00000.parquet")
