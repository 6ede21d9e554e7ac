"""Schemas of the OpenAPI description."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]


def validate(value: Any, name: str, description: dict[str, Any]) -> None:
    """Raises where `value` is not what the description says of the schema `name`."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)
