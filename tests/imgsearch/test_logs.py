"""The lines of a log, whatever is in their messages."""

from __future__ import annotations

import json
import logging
import sys

from imgsearch.logs import JsonFormatter, TextFormatter, task_fields

NAME = "a\x1b]0;owned\x07\x9b\u202e\nINFO forged.png"
ESCAPED = r"a\u001b]0;owned\u0007\u009b\u202e\nINFO forged.png"


def record() -> logging.LogRecord:
    try:
        raise ValueError(NAME)
    except ValueError:
        return logging.LogRecord("x", logging.WARNING, "x.py", 1, "cannot read %s", (NAME,), sys.exc_info())


def test_a_message_is_one_line_without_control_characters() -> None:
    token = task_fields.set({"request_id": NAME})
    first, *traceback = TextFormatter("%(levelname)s %(message)s").format(record()).split("\n")
    task_fields.reset(token)
    assert first == f"WARNING cannot read {ESCAPED} request_id={ESCAPED}"
    assert traceback[0] == "  Traceback (most recent call last):"
    assert traceback[-2:] == [r"  ValueError: a\u001b]0;owned\u0007\u009b\u202e", "  INFO forged.png"]


def test_json_has_the_exact_message_in_safe_characters() -> None:
    line = JsonFormatter({"run": "r1"}).format(record())
    assert ESCAPED in line
    assert line.isprintable()
    assert json.loads(line)["message"] == f"cannot read {NAME}"
