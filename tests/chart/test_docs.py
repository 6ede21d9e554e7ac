"""The chart's docs: a fresh README, a sentence for every value, and notes with commands and warnings."""

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

UNCHANGED = {
    *("resources", "settings", "dashboardLabels", "strategy"),
    *("podSecurityContext", "containerSecurityContext"),
}
"""Maps with defaults that are passed on unchanged."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The chart, to be changed."""
    return Path(shutil.copytree(CHART, tmp_path / "imgsearch"))


def test_the_readme_is_what_helm_docs_makes(helm_docs: str, copy: Path) -> None:
    command = [helm_docs, "--chart-search-root", ".", "--sort-values-order", "file"]
    (copy / "README.md").unlink()
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=60)
    generated = (copy / "README.md").read_text()
    assert (CHART / "README.md").read_text() == generated, (
        f"run in charts/imgsearch: {' '.join(['helm-docs', *command[1:]])}"
    )


def test_every_value_has_a_sentence() -> None:
    rows = ROW.findall((CHART / "README.md").read_text())
    assert {name for name, sentence in rows if not sentence.endswith(".")} == set()
    assert {name for name, _ in rows} == set(value_names(yaml.safe_load((CHART / "values.yaml").read_text())))


def value_names(values: Mapping[str, Any], path: str = "") -> list[str]:
    """The values with a row of their own: each value, and each map that is passed on unchanged."""
    names = []
    for name, value in values.items():
        full_name = f"{path}{name}"
        unchanged = not value or name in UNCHANGED
        names += value_names(value, f"{full_name}.") if isinstance(value, dict) and not unchanged else [full_name]
    return names


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

    def warnings(self, values: Path | Mapping[str, Any] | None = None) -> list[str]:
        """Its warnings."""
        return re.findall(r"^  - (.+)$", self.of(values), re.MULTILINE)


@pytest.fixture
def notes(helm: Helm, copy: Path) -> Notes:
    return Notes(helm, copy)


def test_the_notes_have_the_next_commands(notes: Notes) -> None:
    text = notes.of()
    assert "\n  controller run-pipeline SOURCE --release team --namespace search\n" in text
    assert "\n  kubectl --namespace search port-forward svc/team-searcher 8000:80\n" in text
    assert "  controller status --release team --namespace search " in text
    assert "-l app.kubernetes.io/instance=team" in text


def test_the_notes_name_the_sources_and_the_ways_in(notes: Notes) -> None:
    text = notes.of(CHART / "ci" / "everything-values.yaml")
    assert "SOURCE is one of /sources/photos /sources/scans" in text
    assert "\n  controller run-pipeline /sources/photos --release" in text
    assert re.findall("Or open (http.*/)$", text, re.MULTILINE) == [
        "https://search.example.com/photos/",
        "https://photos.example.com/photos/",
        "http://search.internal.example.com/photos/",
    ]
    assert re.search(r"^  export IMGSEARCH_API_KEY=KEY +.*\bSecret search-keys\b", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("paths", "root_path", "page"),
    [
        ([], "", "/"),
        ([], "/photos", "/photos/"),
        (["/v1", "/"], "", "/"),
        (["/v1", "/"], "/photos", "/photos/"),
        (["/docs", "/photos"], "/photos", "/photos/"),
        (["/*"], "", "/"),
        (["/v1", "/docs"], "", "/v1"),
        (["/photos/docs", "/photos/v1"], "/photos", "/photos/docs"),
    ],
)
def test_the_notes_have_a_page_that_the_ingress_has(notes: Notes, paths: list[str], root_path: str, page: str) -> None:
    ingress = {
        "enabled": True,
        "host": "a.example.com",
        "paths": [{"path": path, "pathType": "ImplementationSpecific"} for path in paths],
    }
    text = notes.of({"searcher": {"ingress": ingress, "settings": {"rootPath": root_path}}})
    assert re.findall("Or open (.*)$", text, re.MULTILINE) == [f"http://a.example.com{page}"]


@pytest.mark.parametrize(
    "values",
    [
        {"existingServiceAccounts": {"worker": "batch"}},
        {"storage": {"workloadIdentity": {"annotations": {"eks.amazonaws.com/role-arn": "arn"}}}},
        {"storage": {"existingSecret": "bucket"}},
    ],
)
def test_the_notes_do_not_warn_of_a_bucket_with_credentials(notes: Notes, values: dict[str, Any]) -> None:
    values = {**values, "storage": {"uri": "s3://images", **values.get("storage", {})}}
    assert not [warning for warning in notes.warnings(values) if "credentials" in warning]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_notes_have_no_trace_of_their_template(notes: Notes, values: Path) -> None:
    text = notes.of(values)
    assert not re.search(r"\{\{|<no value>|%!|\n\n\n", text)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["embed.gpu.count=1"]),
        ({"models": {"claim": {"enabled": False}}}, ["models.claim.enabled is false"]),
        ({"storage": {"claim": {"accessModes": ["ReadWriteOnce"]}}}, ["storage.claim", "ReadWriteMany"]),
        (
            {"storage": {"uri": "s3://images"}},
            ["s3://images", "storage.existingSecret", "storage.workloadIdentity"],
        ),
        (
            {"storage": {"env": {"AWS_ENDPOINT_URL": "http://minio:9000"}}},
            ["storage.env.AWS_ENDPOINT_URL", "9000", "networkPolicy.egressPorts"],
        ),
        ({"searcher": {"ingress": {"enabled": True, "host": "a.example.com"}}}, ["searcher.apiKeys.existingSecret"]),
        (
            {"searcher": {"ingress": {"enabled": True, "host": "a.example.com"}}},
            ["TLS", "searcher.ingress.tls.existingSecret"],
        ),
        ({"searcher": {"service": {"type": "LoadBalancer"}}}, ["searcher.apiKeys.existingSecret"]),
        (
            {"searcher": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}},
            ["searcher.apiKeys.existingSecret"],
        ),
    ],
)
def test_the_notes_warn_with_the_value_to_set(notes: Notes, values: Mapping[str, Any], names: list[str]) -> None:
    assert [warning for warning in notes.warnings(values) if all(name in warning for name in names)]


def test_the_notes_have_no_warning_for_a_complete_configuration(notes: Notes) -> None:
    assert notes.warnings(CHART / "ci" / "everything-values.yaml") == []
