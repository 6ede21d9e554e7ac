"""What the chart says of itself: its README is fresh, every value has its sentence, the notes say what to mind."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import VALUES
from tests.chart.helm import CHART, Helm, Objects

ROOT = CHART.parents[1]
ROW = re.compile(r"^\| (\S+) \| \w+ \| `.+?` \| (.*) \|$", re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The chart, to be changed."""
    return Path(shutil.copytree(CHART, tmp_path / "imgsearch"))


def test_the_readme_is_what_helm_docs_makes(helm_docs: str, copy: Path) -> None:
    command = [helm_docs, "--chart-search-root", ".", "--sort-values-order", "file"]
    (copy / "README.md").unlink()
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=60)
    made = (copy / "README.md").read_text()
    assert (CHART / "README.md").read_text() == made, (
        f"run in charts/imgsearch: {' '.join(['helm-docs', *command[1:]])}"
    )


def test_every_value_has_a_sentence() -> None:
    rows = ROW.findall((CHART / "README.md").read_text())
    assert {name for name, sentence in rows if not sentence.endswith(".")} == set()
    assert {name for name, _ in rows} == set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))


def leaves(values: Mapping[str, Any], path: str = "") -> list[str]:
    """What has a row of its own: each value, and each map that is passed on as it is."""
    found = []
    for name, value in values.items():
        here = f"{path}{name}"
        passed_on = not value or name in ("resources", "settings", "dashboardLabels")
        found += leaves(value, f"{here}.") if isinstance(value, dict) and not passed_on else [here]
    return found


def test_the_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)
    chroma = re.search(r"^chromadb==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert chroma
    assert yaml.safe_load((CHART / "values.yaml").read_text())["images"]["chroma"]["tag"] == chroma[1]


class Notes:
    """NOTES.txt of a release. `helm template` does not show it, so a copy of the chart makes it an object."""

    def __init__(self, helm: Helm, chart: Path) -> None:
        self._helm = helm
        self._chart = chart
        (chart / "templates" / "NOTES.txt").rename(chart / "notes")
        (chart / "templates" / "notes.yaml").write_text(
            'kind: Notes\nmetadata: {name: team-notes}\ntext: {{ tpl (.Files.Get "notes") . | toJson }}\n'
        )

    def of(self, values: Path | Mapping[str, Any] | None = None) -> str:
        objects: Objects = self._helm.template(values, chart=self._chart)
        return str(objects.named("Notes", "notes")["text"])

    def minds(self, values: Path | Mapping[str, Any] | None = None) -> list[str]:
        """Its warnings."""
        return re.findall(r"^  - (.+)$", self.of(values), re.MULTILINE)


@pytest.fixture
def notes(helm: Helm, copy: Path) -> Notes:
    return Notes(helm, copy)


def test_the_notes_say_the_next_command(notes: Notes) -> None:
    said = notes.of()
    assert "\n  controller run-pipeline SOURCE --release team --namespace search\n" in said
    assert "\n  kubectl --namespace search port-forward svc/team-searcher 8000:80\n" in said
    assert "  controller status --release team --namespace search " in said
    assert "-l app.kubernetes.io/instance=team" in said


def test_the_notes_name_the_sources_and_the_ways_in(notes: Notes) -> None:
    said = notes.of(CHART / "ci" / "everything-values.yaml")
    assert "SOURCE is one of /sources/photos /sources/scans" in said
    assert "\n  controller run-pipeline /sources/photos --release" in said
    assert "https://search.example.com/" in said
    assert "\n  export IMGSEARCH_API_KEY=KEY     one of those whose hashes the Secret search-keys has\n" in said


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_notes_have_no_trace_of_their_template(notes: Notes, values: Path) -> None:
    said = notes.of(values)
    assert not re.search(r"\{\{|<no value>|%!|\n\n\n", said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "Images are embedded on CPUs."),
        ({"models": {"claim": {"enabled": False}}}, "every pod downloads the model again"),
        ({"storage": {"claim": {"accessModes": ["ReadWriteOnce"]}}}, "must be on one node"),
        ({"storage": {"uri": "s3://images"}}, "s3://images: neither storage.existingSecret nor"),
        (
            {"storage": {"env": {"AWS_ENDPOINT_URL": "http://minio:9000"}}},
            "uses port 9000, which no NetworkPolicy opens",
        ),
        ({"searcher": {"ingress": {"enabled": True, "host": "a.example.com"}}}, "asks for no key"),
        ({"searcher": {"ingress": {"enabled": True, "host": "a.example.com"}}}, "has no TLS"),
        ({"searcher": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}}, "asks for no key"),
    ],
)
def test_the_notes_warn(notes: Notes, values: Mapping[str, Any], said: str) -> None:
    assert [warning for warning in notes.minds(values) if said in warning]


def test_the_notes_have_nothing_to_warn_of_where_all_is_well(notes: Notes) -> None:
    assert notes.minds(CHART / "ci" / "everything-values.yaml") == []
