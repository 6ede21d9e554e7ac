"""Logs on stderr: one JSON object a line for machines, or plain text for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

from imgsearch.settings import LogSettings

about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039 - nobody changes it
"""What every line of the current task carries: in a server, its request's id."""

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, and whatever `about`, `extra` and `context` carry (run, shard, counts)."""

    def __init__(self, context: dict[str, object]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
            **about.get(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """For a person; `about` comes at the end of the line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in about.get().items())


def configure(settings: LogSettings, **context: object) -> None:
    """Sets up the root logger; called once, by a program's `main`. `context` goes into every JSON line."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonFormatter(context))
    else:
        handler.setFormatter(TextFormatter())
    # open_clip speaks through the root logger about each step of loading.
    handler.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "PIL", "urllib3", "chromadb", "fsspec", "huggingface_hub"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
