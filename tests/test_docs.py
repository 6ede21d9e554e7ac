"""Tests of the docs: generated pages are fresh, pages list what the code has, links lead somewhere, the site builds."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from controller.cli.metrics import RunMetrics
from docs import generate, site
from embedder.metrics import EmbedMetrics
from searcher.ingest.metrics import IngestMetrics
from searcher.search.metrics import Metrics
from tests.pages import PAGES, name_of
from tests.programs import ROOT
from tests.searcher.library import Library

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OWN = re.compile(
    r"https://(?:github\.com/imgsearch/imgsearch/blob/main|raw\.githubusercontent\.com/imgsearch/imgsearch/main)/"
)


@pytest.mark.parametrize("page", sorted(generate.pages()), ids=name_of)
def test_a_generated_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == generate.pages()[page], "run: make docs"


def test_every_command_of_the_controller_has_its_arguments_in_the_docs() -> None:
    page = generate.cli_page()
    assert "## controller run-pipeline SOURCE" in page
    for option in ("--update", "--parallelism N", "-k N", "--bad", "-o, --output table\\|json"):
        assert f"| `{option}` |" in page
    for option in ("--local", "--home DIR", "--release R", "-n, --namespace N"):
        assert page.split("## Target options")[1].count(f"| `{option}` |") == 1


def test_the_metrics_page_names_the_metrics_that_exist_and_no_other() -> None:
    programs = (EmbedMetrics(), IngestMetrics(), RunMetrics("r1", "photos"))
    exposed = "".join(generate_latest(metrics.registry).decode() for metrics in programs) + Metrics().text().decode()
    exist = {name for name in re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE) if not name.endswith("_created")}
    documented = re.findall(r"^\| `(imgsearch_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(exist)


def test_the_page_of_security_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| .+ \| .+ \| (.+) \|$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
    tests = [row.strip("`") for row in rows if row not in ("test", "---")]
    assert len(tests) > 20
    for test in tests:
        assert re.search(r"^\s*(async )?def test_", (ROOT / test).read_text(), re.MULTILINE), test


@pytest.fixture
def openapi(tmp_path: Path) -> dict[str, Any]:
    return Library(tmp_path).app().openapi()


def test_the_api_page_names_the_routes_that_exist_and_no_other(openapi: dict[str, Any]) -> None:
    exist = {
        f"{method.upper()} {path}"
        for path, methods in openapi["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    page = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\| `((?:GET|POST) /v1/[^`]+)` \|", page, re.MULTILINE)) == exist


def test_the_api_page_names_the_fields_of_a_search_and_no_other(openapi: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    fields = openapi["components"]["schemas"]["Search"]["properties"]
    assert sorted(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == sorted(fields)


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """The links of a page to files of this repository: the link, its file, its anchor."""
    for link in LINK.findall(page.read_text()):
        own_link = OWN.match(link)
        if own_link:
            folder, target = ROOT, link[own_link.end() :]
        elif re.match(r"[a-z]+:", link):
            continue
        else:
            folder, target = page.parent, link
        path, _, anchor = target.partition("#")
        yield link, (folder / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_of_the_repository_leads_somewhere(page: Path) -> None:
    for link, target, anchor in links(page):
        assert target.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            assert anchor in {slug(title) for title in HEADING.findall(target.read_text())}, link


def test_the_readme_fits_and_its_links_work_elsewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert [link for link in LINK.findall(text) if not link.startswith("https://")] == []


def test_every_decision_is_in_the_architecture_page() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    for decision in (ROOT / "docs" / "adr").glob("*.md"):
        assert f"(adr/{decision.name})" in architecture


def test_the_glossary_has_at_most_twenty_words() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    glossary = architecture.split("## Glossary\n")[1].split("\n## ")[0]
    assert 10 < len(re.findall(r"^\| (?!word|---)", glossary, re.MULTILINE)) <= 20


def test_the_site_builds_and_a_broken_link_fails(tmp_path: Path) -> None:
    site.prepare(tmp_path)
    assert (site.render(tmp_path) / "adr" / "0001-pointers-are-collection-metadata.html").exists()
    with (tmp_path / "pages" / "index.md").open("a") as page:
        page.write("\n[broken](kubernetes.md#no-such-heading)\n")
    with pytest.raises(subprocess.CalledProcessError):
        site.render(tmp_path)


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    def files(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for child in entry.values() if isinstance(entry, dict) else entry:
                yield from files(child)

    navigation = list(files(tomllib.loads(site.CONFIG.read_text())["project"]["nav"]))
    assert sorted(navigation) == sorted(name for name in site.page_names().values() if name.endswith(".md"))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](kubernetes.md#gpus)", "[a](kubernetes.md#gpus)"),
        ("[a](../CHANGELOG.md)", "[a](changelog.md)"),
        ("[a](../sky/embed.yaml)", f"[a]({site.REPOSITORY}/blob/main/sky/embed.yaml)"),
        ("[a](https://example.com/)", "[a](https://example.com/)"),
        ("[a](#gpus)", "[a](#gpus)"),
        ("[a](missing.md)", "[a](missing.md)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(link: str, expected: str) -> None:
    assert site.site_text(link, "docs/gpu-pools.md", site.page_names()) == expected


def test_a_page_from_elsewhere_links_to_pages_of_the_site() -> None:
    names = site.page_names()
    assert site.site_text("[a](../../docs/metrics.md#ingest)", "charts/imgsearch/README.md", names) == (
        "[a](metrics.md#ingest)"
    )


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
