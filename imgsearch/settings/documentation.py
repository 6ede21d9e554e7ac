"""The table of all settings in docs/settings.md."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from imgsearch.settings import Settings
from imgsearch.settings.fields import Setting, fields_of


def documentation() -> str:
    """The table, in Markdown."""
    lines = ["| variable | values | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in fields_of(Settings):
        default = "" if setting.field.default in ("", None) else f"`{setting.field.default}`"
        lines.append(f"| `{setting.variable}` | {_values(setting)} | {default} | {setting.doc} |")
    return "\n".join(lines) + "\n"


def _values(setting: Setting) -> str:
    """The type and the range."""
    base = typing.get_args(setting.type)[0] if typing.get_origin(setting.type) is Annotated else setting.type
    if typing.get_origin(base) is Literal:
        text = ", ".join(f"`{value}`" if value else "empty" for value in typing.get_args(base))
    else:
        text = base.__name__ + "".join(_bounds(setting.type))
    return f"{text}; or None" if setting.optional else text


def _bounds(hint: Any) -> Iterator[str]:
    """The bounds of an Annotated number, such as `, from 0` and `, to 65535`."""
    for constraint in getattr(hint, "__metadata__", ()):
        for bound in getattr(constraint, "metadata", ()):
            for attribute, word in (("ge", "from"), ("gt", "above"), ("le", "to")):
                if (value := getattr(bound, attribute, None)) is not None:
                    yield f", {word} {value}"
