"""The settings of all programs, which the controller passes to them as environment variables.

`Settings.from_env` reads them once, in a program's `main`; `to_env` writes the variables that `from_env` reads.
The variable of a field is `IMGSEARCH_<GROUP>_<FIELD>`; an empty value means None where None is allowed.

Pydantic checks every value against its type and range, whether it comes from a variable or from code. Each setting has
its default and its range in the file of its program: shared.py, embedder.py, searcher.py or controller.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from imgsearch.errors import UsageError
from imgsearch.settings.controller import JobSettings
from imgsearch.settings.embedder import EmbedSettings
from imgsearch.settings.fields import PREFIX, fields_of
from imgsearch.settings.searcher import EvaluateSettings, SearchSettings
from imgsearch.settings.shared import (
    IndexSettings,
    LogSettings,
    MetricsSettings,
    RunSettings,
    StorageSettings,
    StoreSettings,
)

__all__ = [
    "API_KEY_VARIABLE",
    "PREFIX",
    "EmbedSettings",
    "EvaluateSettings",
    "IndexSettings",
    "JobSettings",
    "LogSettings",
    "MetricsSettings",
    "RunSettings",
    "SearchSettings",
    "Settings",
    "StorageSettings",
    "StoreSettings",
]

API_KEY_VARIABLE = f"{PREFIX}_API_KEY"
"""The API key of a client (`controller search`). It is no setting, but a program may inherit it from its shell."""


@dataclass(frozen=True)
class Settings:
    """All settings of all programs; each program reads the groups that it needs."""

    run: RunSettings = field(default_factory=RunSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    embed: EmbedSettings = field(default_factory=EmbedSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Reads `env`. Raises UsageError for an invalid value or an unknown variable."""
        paths = {setting.variable: setting.path for setting in _SETTINGS.values()}
        known = {*paths, API_KEY_VARIABLE}
        unknown = sorted(name for name in env if name.startswith(f"{PREFIX}_") and name not in known)
        if unknown:
            raise UsageError(f"unknown setting {', '.join(unknown)}; docs/settings.md lists all settings")
        return cls().with_values({paths[name]: text for name, text in env.items() if name in paths})

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """A copy with other values, by path (`embed.batch_images`). A text is read as in an environment variable.

        Raises UsageError for an invalid value or an unknown path."""
        groups: dict[str, dict[str, Any]] = {}
        for path, value in values.items():
            if path not in _SETTINGS:
                raise UsageError(f"unknown setting {path}; docs/settings.md lists all settings")
            setting = _SETTINGS[path]
            if setting.secret and value == "":
                raise UsageError(f"{setting.name} is empty: set a value, or remove the setting")
            group = groups.setdefault(setting.group, {})
            group[setting.field.name] = None if setting.optional and value == "" else value
        return dataclasses.replace(self, **{group: self._group(group, values) for group, values in groups.items()})

    def to_env(self) -> dict[str, str]:
        """The variables that differ from the defaults; `from_env` of them equals this object."""
        env = {}
        for setting in _SETTINGS.values():
            value = getattr(getattr(self, setting.group), setting.field.name)
            if value != setting.field.default:
                env[setting.variable] = "" if value is None else str(value)
        return env

    def _group(self, name: str, values: Mapping[str, Any]) -> Any:
        """A copy of one group with other values."""
        try:
            return dataclasses.replace(getattr(self, name), **values)
        except ValidationError as error:
            first = error.errors()[0]
            setting = _SETTINGS[f"{name}.{first['loc'][0]}"]
            value = "" if setting.secret else f" {first['input']!r}"
            message = str(first.get("ctx", {}).get("error", first["msg"]))  # our own, or Pydantic's
            message = message[:1].lower() + message[1:]
            raise UsageError(f"invalid value{value} for {setting.name}: {message}") from None


_SETTINGS = {setting.path: setting for setting in fields_of(Settings)}
"""The settings by path."""
