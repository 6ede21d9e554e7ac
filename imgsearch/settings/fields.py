"""The fields of the settings: their types, with the valid range, and how to declare and find one."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

PREFIX = "IMGSEARCH"

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
NonNegativeShare = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65_535)]


_UNITS = {"m": Decimal("0.001")} | {
    unit + suffix: Decimal(base) ** power
    for suffix, base, units in (("", 1000, "kMGTPE"), ("i", 1024, "KMGTPE"))
    for power, unit in enumerate(units, start=1)
}
_QUANTITY = re.compile(rf"(\d+(?:\.\d+)?(?:[eE]\d{{1,2}})?)({'|'.join(_UNITS)})?")


def _whole(value: Any) -> Any:
    """The whole number of a Kubernetes quantity, such as `16Gi`.
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
    if not isinstance(value, str):
        return value
    if not (match := _QUANTITY.fullmatch(value)):
        raise ValueError("use a number of bytes, such as 16Gi")
    number, unit = match.groups()
    return int(Decimal(number) * _UNITS.get(unit, 1))


Bytes = Annotated[int, BeforeValidator(_whole), Field(ge=1)]


def setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    """A field with its documentation, which docs/settings.md shows. No message contains a secret. An empty secret is an
    error: its Kubernetes Secret was made wrongly, and must not open what it should lock."""
    return dataclasses.field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret})


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of one group of settings."""

    group: str
    field: dataclasses.Field[Any]
    type: Any
    """Without None."""
    optional: bool
    """Whether None is a valid value."""

    @property
    def path(self) -> str:
        return f"{self.group}.{self.field.name}"

    @property
    def variable(self) -> str:
        return f"{PREFIX}_{self.group}_{self.field.name}".upper()

    @property
    def name(self) -> str:
        """For a message: the user may have set the variable, or the path with `--set`."""
        return f"{self.path} ({self.variable})"

    @property
    def doc(self) -> str:
        return str(self.field.metadata["doc"])

    @property
    def secret(self) -> bool:
        return bool(self.field.metadata["secret"])


def fields_of(settings: type[Any]) -> Iterator[Setting]:
    """The fields of all groups of a settings class."""
    for group in dataclasses.fields(settings):
        cls = typing.cast(type[Any], group.default_factory)
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            hint = hints[field.name]
            optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
            if optional:
                hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
            yield Setting(group.name, field, hint, optional)
