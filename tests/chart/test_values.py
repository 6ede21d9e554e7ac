"""Which values the chart takes: values.yaml, its schema and the programs agree, and what is wrong is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgsearch.settings import EmbedSettings, SearchSettings
from tests.chart.conftest import VALUES
from tests.chart.helm import CHART, Helm

WRONG = sorted(Path(__file__).with_name("wrong").glob("*.yaml"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SETTINGS = {"searcher.settings", "embed.settings"}
"""Whose keys are those of the programs, and most of them without a default here."""

PARTIAL = ("resources", "affinity", "SecurityContext")
"""Objects of Kubernetes, of which the defaults have only some fields."""


def deref(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        return SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")]  # type: ignore[no-any-return]
    return schema


def subschemas(schema: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema in the schema."""
    if isinstance(schema, dict):
        if "type" in schema or "properties" in schema:
            yield path, schema
        for name, subschema in schema.items():
            yield from subschemas(subschema, f"{path}/{name}")
    elif isinstance(schema, list):
        for number, subschema in enumerate(schema):
            yield from subschemas(subschema, f"{path}/{number}")


def disagreements(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Keys that only one of the two knows; and keys with a default that may be missing, so that null is refused."""
    allowed = deref(schema).get("properties")
    if allowed is None or path in SETTINGS or path.endswith(PARTIAL):
        return
    for name in (values.keys() ^ allowed.keys()) - {"global"}:
        yield f"{path}.{name}"
    for name in values.keys() & allowed.keys():
        full_name = f"{path}.{name}".lstrip(".")
        if (name in deref(schema).get("required", [])) is (values[name] is None):
            nullable = "null" in deref(allowed[name]).get("type", [])
            if not nullable:
                yield f"{full_name} (required)"
        if isinstance(values[name], dict):
            yield from disagreements(values[name], allowed[name], full_name)


def test_the_values_and_the_schema_know_the_same_keys() -> None:
    assert list(disagreements(yaml.safe_load((CHART / "values.yaml").read_text()), SCHEMA)) == []


def test_the_schema_takes_no_key_that_it_does_not_know() -> None:
    open_ones = {
        path
        for path, schema in subschemas(SCHEMA)
        if schema.get("type") == "object" and "additionalProperties" not in schema
    }
    # What Kubernetes itself checks (the last one: volumes and valueFrom), and `global`, which is for others.
    assert {path.rsplit("/", 1)[-1] for path in open_ones} <= {
        *("global", "nodeAffinity", "podAffinity", "podAntiAffinity", "podSelector", "namespaceSelector"),
        *("items", "additionalProperties"),
    }
    assert [path for path in open_ones if path.endswith("/items")] == [
        "/properties/searcher/properties/autoscaling/properties/metrics/items"
    ]


@pytest.mark.parametrize(
    ("component", "settings", "left_out"),
    [
        # Its address and its keys come from the chart itself.
        ("searcher", SearchSettings, {"host", "port", "api_keys"}),
        ("embed", EmbedSettings, set()),
    ],
)
def test_the_schema_has_the_settings_of_the_programs(component: str, settings: type, left_out: set[str]) -> None:
    schema = SCHEMA["properties"][component]["properties"]["settings"]["properties"]
    names = {spec.name for spec in dataclasses.fields(settings)} - left_out
    assert {re.sub("([A-Z])", r"_\1", name).lower() for name in schema} == names


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_chart_passes_the_strict_lint(helm: Helm, values: Path) -> None:
    completed = helm.lint(values)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_there_are_twenty_wrong_values_and_more() -> None:
    assert len(WRONG) >= 20


@pytest.mark.parametrize("values", WRONG, ids=lambda path: path.stem)
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, values: Path) -> None:
    """The first line of each file is what the refusal must say."""
    sentence = values.read_text().splitlines()[0].removeprefix("# ")
    completed = helm.try_template(values)
    assert completed.returncode != 0, "it was taken"
    assert sentence in completed.stderr


def test_a_release_name_that_is_too_long_for_its_jobs_is_refused(helm: Helm) -> None:
    assert helm.try_template(release="a" * 40).returncode == 0
    completed = helm.try_template(release="a" * 41)
    assert f'the release name "{"a" * 41}" is too long' in completed.stderr


def test_the_chart_can_be_a_part_of_another(helm: Helm, tmp_path: Path) -> None:
    """Helm then hands it `global`."""
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: outer\nversion: 1.0.0\n")
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "imgsearch").symlink_to(CHART)
    chart = helm.template({"imgsearch": {"logLevel": "DEBUG"}, "global": {"team": "a"}}, chart=tmp_path)
    assert chart.named("ConfigMap", "pipeline")["data"]["IMGSEARCH_LOG_LEVEL"] == "DEBUG"
