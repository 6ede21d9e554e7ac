"""Names and values of metadata that every plan and every store supports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NAME = 1_000
"""Characters of a name. Each image stores its names, and each search returns them."""

Metadata = Mapping[str, Any]
"""Any text is a name. Values are str, int, float, bool or a list of one of those; any other value becomes a str."""


class InvalidName(ValueError):
    """Names of metadata that cannot be used. The message is one clause about the place of the names."""


def check_names(names: Sequence[str]) -> None:
    """Raises InvalidName for a name that occurs twice, is too long or is not Unicode."""
    check_unique(names)
    for name in names:
        if len(name) > MAX_NAME:
            raise InvalidName(f"has a name with more than {MAX_NAME:,} characters, {name[:60]!r}…")
        if printable(name) != name:
            raise InvalidName(f"has a name that is not valid Unicode, {name!r}")


def check_unique(names: Sequence[str]) -> None:
    """Raises InvalidName for a name that occurs twice."""
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise InvalidName(f"has two values with the name {twice[:60]!r}")


def to_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Any values as Metadata. Leaves out None, NaN, bytes and empty lists. `check_names` has accepted the names."""
    return {name: value for name, raw in values.items() if (value := _to_value(raw)) is not None}


def printable(text: str) -> str:
    """`text` as valid Unicode. Escapes the rest, such as a byte of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _to_value(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str | int | float | None) for item in value):
        flat = [scalar for item in value if (scalar := _scalar(item)) is not None]
        kinds = {type(scalar) for scalar in flat}
        if len(kinds) < 2:
            return flat or None
        if kinds == {int, float}:
            return [float(scalar) for scalar in flat]
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else _scalar(float(str(value)))  # stores hold 64 bits
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, bytes) else printable(str(value))
