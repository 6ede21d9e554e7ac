"""Names in the docs exist: files, make targets, commands, options, settings, chart values, metrics, routes, labels."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest

from controller.cli.metrics import RunMetrics
from controller.main import parser
from embedder.metrics import EmbedMetrics
from imgsearch import labels
from imgsearch.settings import API_KEY_VARIABLE
from imgsearch.settings.documentation import documentation
from searcher.app import PUBLIC
from searcher.ingest.metrics import IngestMetrics
from searcher.search.metrics import Metrics
from tests.pages import PAGES, blocks, code_lines, name_of, spans
from tests.programs import ROOT
from tests.searcher.library import Library

CHART = ROOT / "charts" / "imgsearch"
SKY = ROOT / "sky"
SOURCES = [*PAGES, *SKY.glob("*.yaml"), CHART / "values.yaml", CHART / "README.md.gotmpl", ROOT / "Makefile"]
"""Pages, and files whose comments name the same things."""
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SETTINGS = set(re.findall(r"`(IMGSEARCH_\w+)`", documentation()))
NOT_A_SETTING = "IMGSEARCH_SEARCHER_PORT"
"""The example of a variable that Kubernetes sets for a Service."""
COMMANDS: dict[str, argparse.ArgumentParser] = next(
    action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
).choices  # type: ignore[assignment]


def missing(
    pages: Iterable[Path], names: Callable[[Path], Iterable[str]], exists: Callable[[str], bool], *, at_least: int
) -> list[str]:
    """The names in these pages that do not exist. Fails if the pages have fewer than `at_least` names."""
    found = [(page, name) for page in pages for name in names(page)]
    assert len(found) >= at_least
    return [f"{name_of(page)}: {name}" for page, name in found if not exists(name)]


def test_files_exist() -> None:
    folders = "controller|images|imgsearch|charts|sky|tests|docs|bench|demo"

    def paths(page: Path) -> set[str]:
        text = re.sub(r"https?://\S+", "", page.read_text())
        return set(re.findall(rf"(?<![\w/.:<-])((?:{folders})/[\w./-]*\w)", text)) - {"images/s"}

    assert missing(SOURCES, paths, lambda path: (ROOT / path).exists(), at_least=100) == []


def test_files_without_a_folder_exist() -> None:
    @cache
    def exists(name: str) -> bool:
        return any(
            file for folder in ("controller", "images", "imgsearch", "charts") for file in (ROOT / folder).rglob(name)
        )

    def modules(page: Path) -> list[str]:
        return [span for span in spans(page) if re.fullmatch(r"\w+\.(?:py|tpl)", span)]

    assert missing(PAGES, modules, exists, at_least=5) == []


def test_the_tree_of_the_architecture_page_exists() -> None:
    (tree,) = [block for block in blocks(ROOT / "docs" / "architecture.md") if block.startswith("controller/\n")]
    entries = list(_entries(tree))
    assert len(entries) > 100
    assert [name_of(path) for path in entries if not path.exists()] == []


def _entries(tree: str) -> Iterator[Path]:
    """The folders and Python files of a tree, in which the indentation of a line shows its folder."""
    folders = {0: ROOT}
    for line in tree.splitlines():
        depth = len(line) - len(line.lstrip())
        folder = folders[max(other for other in folders if other <= depth)]
        if match := re.match(r"\s*([\w/]+)/(?:\s|$)", line):
            folder /= match[1]
            folders = {other: path for other, path in folders.items() if other <= depth} | {depth + 1: folder}
            yield folder
        yield from (folder / name for name in re.findall(r"\w+\.py", line))


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "image-%:" in makefile
    images = {file.parent.name for file in (*ROOT.glob("images/*/*"), *ROOT.glob("tests/cluster/*/*"))}
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.MULTILINE), "images", *(f"image-{name}" for name in images)}

    assert {"demo", "test"} <= targets

    def named(page: Path) -> list[str]:
        commands = [words for line in code_lines(page) for words in _commands(line) if words[0] == "make"]
        return [word for words in commands for word in words[1:] if re.fullmatch("[a-z-]+", word)]

    assert missing(PAGES, named, targets.__contains__, at_least=30) == []


def test_commands_of_the_controller_and_their_options_exist() -> None:
    def named(page: Path) -> Iterator[str]:
        comments = re.findall(r"^# +(.+)$", page.read_text(), re.MULTILINE) if page.suffix == ".yaml" else []
        for line in (*code_lines(page), *comments):
            for program, *words in _commands(line):
                if program == "controller" and words and re.fullmatch("[a-z][a-z-]+", words[0]):
                    yield words[0]
                    yield from (f"{words[0]} {_flag(word)}" for word in words[1:] if word.startswith("-"))

    def exists(name: str) -> bool:
        command, _, option = name.partition(" ")
        return command in COMMANDS and (not option or option in COMMANDS[command]._option_string_actions)

    assert missing(SOURCES, named, exists, at_least=150) == []


def test_options_in_sentences_exist() -> None:
    """The page of sky/ has options of SkyPilot; tests/skypilot/test_yaml.py parses its commands."""
    pages = [page for page in PAGES if page.parent != SKY]
    options = {"--version", *(option for command in COMMANDS.values() for option in command._option_string_actions)}

    def named(page: Path) -> list[str]:
        return [_flag(span.split()[0]) for span in spans(page) if re.match("--[a-z]", span)]

    assert missing(pages, named, options.__contains__, at_least=100) == []


def test_settings_exist() -> None:
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))

    def exists(name: str) -> bool:
        if name.startswith("IMGSEARCH_TEST_"):
            return name in tests
        return name in SETTINGS | {API_KEY_VARIABLE, NOT_A_SETTING}

    def named(page: Path) -> set[str]:
        return set(re.findall(r"\bIMGSEARCH_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))

    assert missing(SOURCES, named, exists, at_least=50) == []


def test_chart_values_exist() -> None:
    sections = "|".join(SCHEMA["properties"])
    settings = {".".join(name.removeprefix("IMGSEARCH_").lower().split("_", 1)) for name in SETTINGS}
    """Names for `--set` of the controller, such as embed.batch_images."""

    def named(page: Path) -> Iterator[str]:
        for span in spans(page):
            if match := re.fullmatch(rf"((?:{sections})(?:\.\w+)+)(?::.*)?", span):
                yield match[1]
        for line in code_lines(page):
            yield from re.findall(rf"(?:--set |--set '|,)((?:{sections})\.[\w.]+)=", line)

    def exists(name: str) -> bool:
        return name in settings or name.endswith((".json", ".py", ".yaml")) or _is_value(name.split("."))

    assert missing(PAGES, named, exists, at_least=50) == []


def test_values_in_yaml_blocks_exist() -> None:
    def named(page: Path) -> Iterator[str]:
        for block in blocks(page, "yaml"):
            values = next(yaml.safe_load_all(block))
            if values.keys() & SCHEMA["properties"].keys():
                yield from _leaves(values)

    assert missing(PAGES, named, lambda value: _is_value(value.split("/")), at_least=30) == []


def test_metrics_exist() -> None:
    programs = (EmbedMetrics(), IngestMetrics(), RunMetrics("r1", "photos"))
    exposed = "".join(generate_latest(program.registry).decode() for program in programs) + Metrics().text().decode()
    metrics = set(re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE))

    def named(page: Path) -> list[str]:
        return re.findall(r"`(imgsearch_\w+)`", page.read_text())

    assert missing([*PAGES, CHART / "values.yaml"], named, metrics.__contains__, at_least=35) == []


def test_routes_exist(tmp_path: Path) -> None:
    app = Library(tmp_path).app()
    paths = {_shape(path) for path in (*app.openapi()["paths"], *PUBLIC)}

    def named(page: Path) -> list[str]:
        return [
            "".join(found) for span in spans(page) for found in re.findall(r"^(?:GET|POST) (/\S+)|^(/v1/\S+)$", span)
        ]

    assert missing(PAGES, named, lambda path: _shape(path) in paths, at_least=20) == []


def _shape(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_labels_and_annotations_exist() -> None:
    exist = {value for value in vars(labels).values() if isinstance(value, str)}

    def named(page: Path) -> list[str]:
        return re.findall(r"imgsearch\.dev/[a-z-]+", page.read_text())

    assert missing(SOURCES, named, exist.__contains__, at_least=5) == []


def test_objects_of_the_chart_exist() -> None:
    templates = "".join(file.read_text() for file in (CHART / "templates").rglob("*") if file.is_file())
    exist = set(re.findall(r'include "imgsearch\.[\w.]+" \(list \S+ "([\w-]+)"', templates))

    def named(page: Path) -> list[str]:
        return [name for span in spans(page) for name in re.findall(r"(?:<release>|RELEASE)-([a-z]+)\b", span)]

    assert missing(PAGES, named, exist.__contains__, at_least=10) == []


def _commands(line: str) -> Iterator[list[str]]:
    """The commands of a line of code, each as its words. The first is the program without its folder."""
    for command in re.split(r"(?:^|\s)#\s|&&|;|\|\s", line):
        if words := command.split():
            yield [Path(words[0]).name, *words[1:]]


def _flag(word: str) -> str:
    """An option without its value, and without the punctuation of a sentence."""
    return re.sub(r"[^\w-].*", "", word)


def _leaves(values: Any, path: str = "") -> Iterator[str]:
    """The values of a YAML document, each as the names of its keys."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{path}/{name}".lstrip("/"))
    else:
        yield path


def _is_value(names: Sequence[str]) -> bool:
    """Whether the schema of the chart has this value, or has a map there with any keys."""
    schema = SCHEMA
    for name in names:
        schema = _resolved(schema)
        if "properties" not in schema:
            return "patternProperties" in schema or schema.get("additionalProperties") is not False
        if name not in schema["properties"]:
            return False
        schema = schema["properties"][name]
    return True


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")]
    return schema
