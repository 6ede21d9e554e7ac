"""The records of a store: made from the rows of a part, with metadata that every store supports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from imgsearch.runs.layout import RunFolder
from imgsearch.runs.parts import PartRow
from imgsearch.stores import Record
from imgsearch.stores.filters import Scalar


def record(row: PartRow, *, run: str, shard: int, part: int) -> Record:
    """The record of one row of a part. Its internal fields:

    `key` (source key), `run` (its folder has the thumbnail), `thumbs` (`shard/part`), `offset` and `length` (bytes in
    that tar), `width` and `height` (pixels of the original)."""
    return Record(
        row["id"],
        filterable(json.loads(row["metadata"])),
        row["embedding"],
        {
            "key": row["key"],
            "run": run,
            "thumbs": f"{shard:05d}/{part:05d}",
            "offset": row["thumb_offset"],
            "length": row["thumb_length"],
            "width": row["width"],
            "height": row["height"],
        },
    )


def thumbnail(record: Record) -> tuple[str, int, int]:
    """The location of the record's thumbnail: the path of a tar in the storage, and the offset and length in bytes."""
    internal = record.internal
    shard, part = (int(number) for number in internal["thumbs"].split("/"))
    return RunFolder(internal["run"]).thumbs(shard, part), internal["offset"], internal["length"]


def filterable(metadata: Mapping[str, Any]) -> dict[str, Scalar | list[Scalar]]:
    """The source's metadata as every store supports it: text, numbers, booleans, and lists of one of these types.

    Leaves out null, which stores do not have. Nested values become JSON text. Every name stays as it is."""
    result: dict[str, Scalar | list[Scalar]] = {}
    for name, value in metadata.items():
        if isinstance(value, (list, tuple)):
            items = [item for item in map(_scalar, value) if item is not None]
            if items:
                result[name] = _alike(items)
        elif (scalar := _scalar(value)) is not None:
            result[name] = scalar
    return result


def _scalar(value: Any) -> Scalar | None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, (str, int, float, bool)):
        return value
    return json.dumps(value, ensure_ascii=False)


def _alike(items: Sequence[Scalar]) -> list[Scalar]:
    """The items as values of one type, because a list in a store has one type. Mixed types become text."""
    if len({type(item) for item in items}) == 1:
        return list(items)
    if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
        return [float(item) for item in items]
    return [str(item) for item in items]
