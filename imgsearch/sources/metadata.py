"""The rows of metadata.jsonl and metadata.csv, which describe the image files beside them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from imgsearch.errors import UsageError
from imgsearch.sources.values import InvalidName, Metadata, check_names, check_unique, to_metadata

NAMES = ("metadata.jsonl", "metadata.csv")
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""Without leading zeros: 00501 is a zip code. Without nan and inf, which are words. At most 18 digits: 64 bits."""


def rows(path: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Metadata]]:
    """The `file_name` of each row of the file at `path`, and its other values.

    Raises UsageError, with the file and line, for a row that cannot be read."""
    return (_json_rows if path.endswith(".jsonl") else _csv_rows)(path, _decoded(path, lines))


def _json_rows(path: str, lines: Iterable[str]) -> Iterator[tuple[str, Metadata]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
            check_names(list(row) if isinstance(row, dict) else [])
            values = to_metadata(row) if isinstance(row, dict) else None
        except InvalidName as error:
            raise _bad_line(path, number, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise _bad_line(path, number, f"is not JSON ({error})") from error
        if values is None:
            raise _bad_line(path, number, "is not a JSON object")
        yield _file_name(path, number, values), values


def _csv_rows(path: str, lines: Iterable[str]) -> Iterator[tuple[str, Metadata]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        check_names(reader.fieldnames or [])
        for row in reader:
            if None in row or None in row.values():
                raise _bad_line(path, reader.line_num, "has more or fewer values than the first line has names")
            name = _file_name(path, reader.line_num, row)
            yield name, to_metadata({column: _parse(value) for column, value in row.items()})
    except InvalidName as error:
        raise _bad_line(path, reader.line_num, str(error)) from error
    except csv.Error as error:
        raise _bad_line(path, reader.reader.line_num, f"is not CSV ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises InvalidName for two values with one name, of which Python's own parser keeps the last."""
    check_unique([name for name, _ in pairs])
    return dict(pairs)


def _decoded(path: str, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _bad_line(path, number, "is not UTF-8") from error


def _file_name(path: str, number: int, row: dict[str, Any]) -> str:
    name = row.pop("file_name", None)
    if not isinstance(name, str) or not name:
        raise _bad_line(path, number, "names no image in `file_name`")
    return name


def _parse(value: str) -> str | int | float | None:
    if number := NUMBER.fullmatch(value):
        return float(value) if number[2] or number[3] else int(value)
    return value or None


def _bad_line(path: str, number: int, problem: str) -> UsageError:
    return UsageError(f"{path}, line {number}, {problem}: correct it")
