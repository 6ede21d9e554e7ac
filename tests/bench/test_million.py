"""The benchmark of a million images, with 20 000: all that is searched for is found, and pages are one list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from bench import million, models
from bench.results import Figure

# Two indexes are filled while other tests run.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> million.Setup:
    return million.Setup(20_000, 256, models.DEMO, tmp_path_factory.mktemp("million"), small=1_000)


@pytest.fixture(scope="module")
def tables(setup: million.Setup) -> Mapping[str, Sequence[Figure]]:
    return million.tables(setup, seconds=0.3, rounds=1)


def values(tables: Mapping[str, Sequence[Figure]], heading: str, column: str) -> dict[str, float]:
    return {figure.case: figure.value for figure in tables[heading] if figure.column == column}


@pytest.mark.parametrize("k", ["10", "100", "1,000"])
def test_the_recall_reaches_its_target(tables: Mapping[str, Sequence[Figure]], k: str) -> None:
    found = values(tables, "Recall", f"recall@{k}")
    assert found.keys() == {"images", "changed images", "texts"}
    assert min(found.values()) >= 0.99


def test_each_filter_finds_what_passes(tables: Mapping[str, Sequence[Figure]]) -> None:
    found = values(tables, "Filters", "recall@10")
    assert len(found) == 10
    assert min(found.values()) >= 0.99


def test_joined_pages_are_one_search(tables: Mapping[str, Sequence[Figure]]) -> None:
    assert values(tables, "Pages", "share that is the one search") == {"joined pages": 1}


def test_every_image_is_ingested(setup: million.Setup, tables: Mapping[str, Sequence[Figure]]) -> None:
    assert json.loads((setup.folder / "ingest.json").read_text())["added"] == setup.images
