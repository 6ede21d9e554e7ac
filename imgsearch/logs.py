"""Logs on stderr: one JSON object a line for machines, or plain text for people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from textwrap import indent
from typing import Any

from imgsearch.escapes import to_json, visible, visible_lines
from imgsearch.settings import LogSettings

task_fields: ContextVar[Mapping[str, str]] = ContextVar("task_fields", default={})  # noqa: B039 - never changed
"""The fields in every line of the current task: in a server, the request's id."""

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, and the fields of `context`, `task_fields` and `extra` (run, shard, counts)."""

    def __init__(self, context: dict[str, object]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
            **task_fields.get(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return to_json(fields)


class TextFormatter(logging.Formatter):
    """A line for a person, with `task_fields` at the end. The lines of a traceback are indented."""

    def __init__(self, format: str = "%(asctime)s %(levelname)-7s %(message)s") -> None:
        super().__init__(format, "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in task_fields.get().items())
        return visible(super().formatMessage(record) + fields)

    def formatException(self, ei: Any) -> str:
        return indent(visible_lines(super().formatException(ei)), "  ")


def configure(settings: LogSettings, **context: object) -> None:
    """Sets up the root logger. Call it once, in a program's `main`. Every JSON line has the fields of `context`."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonFormatter(context))
    else:
        handler.setFormatter(TextFormatter())
    # open_clip logs each step of loading with the root logger.
    handler.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    for verbose in ("httpx", "httpcore", "PIL", "urllib3", "chromadb", "fsspec", "huggingface_hub"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
