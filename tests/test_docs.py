"""The docs say what the code does: generated pages are fresh, metrics are complete, links and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from controller.cli.metrics import RunMetrics
from docs import generate
from embedder.metrics import EmbedMetrics
from searcher.ingest.metrics import IngestMetrics
from searcher.search.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "demo").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", sorted(generate.pages()), ids=name_of)
def test_a_generated_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == generate.pages()[page], "run: .venv/bin/python -m docs.generate"


def test_the_readme_shows_the_help() -> None:
    assert "usage: controller" in (ROOT / "README.md").read_text()


def test_every_command_of_the_controller_has_its_arguments_in_the_docs() -> None:
    page = generate.cli_page()
    assert "## controller run-pipeline SOURCE" in page
    for option in ("--update", "--parallelism N", "-k N", "--bad", "-o, --output table\\|json"):
        assert f"| `{option}` |" in page


def test_the_metrics_page_names_the_metrics_that_exist_and_no_other() -> None:
    programs = (EmbedMetrics(), IngestMetrics(), RunMetrics("r1", "photos"))
    exposed = "".join(generate_latest(one.registry).decode() for one in programs) + Metrics().text().decode()
    exist = {name for name in re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE) if not name.endswith("_created")}
    told = re.findall(r"^\| `(imgsearch_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(exist)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            assert anchor in {slug(heading) for heading in HEADING.findall(target.read_text())}, link


def test_every_decision_is_in_the_architecture_page() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    for decision in (ROOT / "docs" / "adr").glob("*.md"):
        assert f"(adr/{decision.name})" in architecture


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        told = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
        assert {first or second for first, second in told} <= targets
    assert {"demo", "test"} <= targets


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
