"""Escapes that make a text from data safe to print: names of files, metadata, messages of pods.

A control character in such a text could change the title, the colours or the lines of a terminal, and a bidirectional
override could show a name in another order (https://trojansource.codes). The escapes are those of JSON."""

from __future__ import annotations

import json
import re
from typing import Any

UNSAFE = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""C0, DEL, C1, separators of lines and paragraphs, bidirectional embeddings, overrides and isolates, and halves of
surrogate pairs, which no terminal gets."""
CHARACTER = re.compile(f"[{UNSAFE}]")
EXCEPT_LINES = re.compile(f"(?![\n\t])[{UNSAFE}]")
SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """`text` as one line, with an escape for each unsafe character."""
    return CHARACTER.sub(_escape, text)


def visible_lines(text: str) -> str:
    """`text` with an escape for each unsafe character except line feeds and tabs."""
    return EXCEPT_LINES.sub(_escape, text)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that is safe to print. A program that reads it gets the exact value."""
    return visible_lines(json.dumps(value, ensure_ascii=False, indent=indent, default=str))


def _escape(match: re.Match[str]) -> str:
    return SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"
