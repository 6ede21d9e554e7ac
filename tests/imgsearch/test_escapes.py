"""Text from data, safe to print."""

from __future__ import annotations

import json
import unicodedata

import pytest

from imgsearch.escapes import to_json, visible, visible_lines

HOSTILE = "a\x1b[31m\x9b\x00\x07\x7f\r\n\t\u2028\u202e\u2066\udce9z"
BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def test_an_unsafe_character_is_an_escape_of_json() -> None:
    escaped = r"a\u001b[31m\u009b\u0000\u0007\u007f\r\n\t\u2028\u202e\u2066\udce9z"
    assert visible(HOSTILE) == escaped
    assert json.loads(f'"{escaped}"') == HOSTILE


def test_a_text_of_lines_keeps_them() -> None:
    assert visible_lines("one\n\ttwo\r\n\x1b") == "one\n\ttwo\\r\n\\u001b"


def test_every_control_character_and_no_letter_is_unsafe() -> None:
    for character in map(chr, range(0x110000)):
        unsafe = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        unsafe = unsafe or unicodedata.bidirectional(character) in BIDI
        assert (visible(character) != character) == unsafe, ascii(character)


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_safe_and_exact(indent: int | None) -> None:
    value = {HOSTILE: [HOSTILE, "é\\", 1.5, None]}
    text = to_json(value, indent=indent)
    assert visible_lines(text) == text
    assert json.loads(text) == value
