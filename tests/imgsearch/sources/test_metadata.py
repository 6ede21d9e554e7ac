"""Rows of metadata.jsonl and metadata.csv, whatever is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imgsearch.errors import UsageError
from imgsearch.sources.metadata import rows


def parse(name: str, text: str | bytes) -> dict[str, Any]:
    data = text.encode() if isinstance(text, str) else text
    return dict(rows(f"/photos/{name}", data.splitlines(keepends=True)))


def test_json_lines_may_begin_with_a_byte_order_mark_and_be_empty() -> None:
    assert parse("metadata.jsonl", '\ufeff{"file_name": "one.png", "label": "cat"}\n\n') == {
        "one.png": {"label": "cat"}
    }


def test_numbers_of_a_csv_are_numbers_where_the_whole_value_is_one() -> None:
    text = (
        "file_name,int,float,exp,zip,underscore,word,empty,huge,text\n"
        'one.png,-7,2.50,1e3,00501,1_000,nan,,18446744073709551616,"a, ""b"""\n'
    )
    assert parse("metadata.csv", text) == {
        "one.png": {
            "int": -7,
            "float": 2.5,
            "exp": 1000.0,
            "zip": "00501",
            "underscore": "1_000",
            "word": "nan",
            "huge": "18446744073709551616",
            "text": 'a, "b"',
        }
    }


def test_names_are_those_of_the_source() -> None:
    row = {
        "#likes": 1,
        "$price": 2,
        "_a": 3,
        "a": 4,
        "": 5,
        "a.b": 6,
        "\0": 7,
        "\u00e9": 8,
        "e\u0301": 9,
        "x" * 1000: 10,
    }
    assert parse("metadata.jsonl", json.dumps({"file_name": "one.png", **row})) == {"one.png": row}
    assert parse("metadata.csv", ",file_name,#likes,_a\n0,one.png,5,6\n") == {"one.png": {"": 0, "#likes": 5, "_a": 6}}


def test_values_are_scalars_or_lists_of_one_kind() -> None:
    row = {
        "file_name": "one.png",
        "null": None,
        "nan": float("nan"),
        "tags": ["a", None, "b"],
        "mixed": [1, 2.5],
        "odd": [1, "a"],
        "large": [2**64, 1],
        "larger": 10**4000,
        "none": [],
        "box": {"x": 1},
        "yes": True,
        "broken": "\ud800",
    }
    assert parse("metadata.jsonl", json.dumps(row)) == {
        "one.png": {
            "tags": ["a", "b"],
            "mixed": [1.0, 2.5],
            "odd": '[1, "a"]',
            "large": [2.0**64, 1.0],
            "box": '{"x": 1}',
            "yes": True,
            "broken": "\\ud800",
        }
    }


@pytest.mark.parametrize(
    ("name", "text", "mistake"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": ', "line 2, .*JSON"),
        ("metadata.jsonl", b"[" * 100_000, "line 1, .*JSON"),
        ("metadata.jsonl", b'["a.png"]', "line 1, .*JSON object"),
        ("metadata.jsonl", b'{"name": "a.png"}', "line 1, .*`file_name`"),
        ("metadata.jsonl", b'{"file_name": 7}', "line 1, .*`file_name`"),
        ("metadata.jsonl", b'{"file_name": "caf\xe9.png"}', "line 1, .*UTF-8"),
        ("metadata.jsonl", b'{"file_name": "a.png", "a": 1, "a": 2}', "line 1, .*two values with the name 'a'"),
        ("metadata.jsonl", b'{"file_name": "a.png", "b": {"a": 1, "a": 2}}', "line 1, .*two values with the name 'a'"),
        ("metadata.jsonl", b'{"file_name": "a.png", "' + b"x" * 1001 + b'": 1}', "line 1, .*1,000 characters, 'xxx"),
        ("metadata.jsonl", b'{"file_name": "a.png", "\\ud800": 1}', r"line 1, .*not valid Unicode, '\\ud800'"),
        ("metadata.csv", b"file_name,label,label\na.png,cat,dog\n", "line 1, .*two values with the name 'label'"),
        ("metadata.csv", b"file_name," + b"x" * 1001 + b"\na.png,cat\n", "line 1, .*1,000 characters"),
        ("metadata.csv", b"file_name,label\na.png,cat\nb.png\n", "line 3, .*values"),
        ("metadata.csv", b"file_name,label\na.png,cat,dog\n", "line 2, .*values"),
        ("metadata.csv", b"image,label\na.png,cat\n", "line 2, .*`file_name`"),
        ("metadata.csv", b'file_name,label\na.png,"cat\n', "line 2, .*CSV"),
    ],
)
def test_a_line_that_is_wrong_is_named(name: str, text: bytes, mistake: str) -> None:
    with pytest.raises(UsageError, match=f"^/photos/{name}, {mistake}"):
        parse(name, text)
