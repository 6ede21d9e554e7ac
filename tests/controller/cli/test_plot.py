"""What an evaluation looks like: tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.cli import plot, tables
from imgsearch.errors import UsageError


def index(name: str) -> dict[str, Any]:
    return {
        "index": name,
        "run": "r1",
        "model": "m",
        "images": 1200,
        "labels": "label",
        "captions": None,
        "by_label": [
            {"label": str(n), "images": 3, "first_at": None, "precision@1": 0.0, "precision@10": 0.1} for n in range(9)
        ],
    }


def interval(value: float, at_best: float = 1.0) -> dict[str, float]:
    return {"queries": 20, "value": value, "low": value - 0.1, "high": value + 0.05, "at_best": at_best}


DIFFERENCE = {"queries": 19, "value": -0.2, "low": -0.3, "high": 0.01}
ONE_INDEX = {
    "indexes": [index("photos")],
    "figures": [
        {"of": "images", "figure": "recall@1", "indexes": [interval(0.9)], "difference": None},
        {"of": "images", "figure": "recall@10", "indexes": [interval(0.8)], "difference": None},
        {"of": "labels", "figure": "precision@10", "indexes": [interval(0.25, 0.5)], "difference": None},
    ],
}
TWO_INDEXES = {
    "indexes": [index("photos"), index("other")],
    "figures": [
        {"of": "images", "figure": "recall@1", "indexes": [interval(0.9), interval(0.7)], "difference": DIFFERENCE},
        {"of": "captions", "figure": "R@1", "indexes": [None, interval(0.7)], "difference": None},
    ],
}


def test_each_figure_is_a_row_with_its_interval() -> None:
    first, _, last = tables.evaluation_rows(ONE_INDEX)
    assert first == {
        "asked with": "images",
        "figure": "recall@1",
        "score": "0.900",
        "95 %": "0.800 to 0.950",
        "at best": "",
        "queries": 20,
    }
    assert last["at best"] == "0.500"


def test_two_indexes_are_side_by_side_with_their_difference() -> None:
    first, last = tables.evaluation_rows(TWO_INDEXES)
    assert first == {
        "asked with": "images",
        "figure": "recall@1",
        "photos": "0.900",
        "other": "0.700",
        "difference": "-0.200",
        "95 %": "-0.300 to +0.010",
        "queries of both": 19,
    }
    assert (last["photos"], last["other"], last["difference"]) == ("", "0.700", "")


def test_what_was_measured_and_the_weakest_labels_are_told() -> None:
    assert tables.evaluated_index(index("photos")) == "index photos: 1,200 images, model m, labels in 'label'"
    weakest = tables.weakest_labels(index("photos"))
    assert len(weakest) == 5
    assert list(weakest[0].values()) == ["0", 3, None, "0.00", "0.10"]


@pytest.mark.parametrize("evaluation", [ONE_INDEX, TWO_INDEXES])
def test_a_plot_has_a_panel_for_each_kind_of_figure(evaluation: dict[str, Any], tmp_path: Path) -> None:
    plot.plot(evaluation, tmp_path / "plot.svg")
    svg = (tmp_path / "plot.svg").read_text()
    assert "<!-- recall: the store against exact search -->" in svg
    assert ("<!-- R: something right among the first k -->" in svg) == (evaluation is TWO_INDEXES)
    assert ("<!-- images, other -->" in svg) == (evaluation is TWO_INDEXES)
    plot.plot(evaluation, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_where_no_plot_can_be_written_it_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    plot.check_plot(tmp_path / "plot.svg")
    with pytest.raises(UsageError, match=r"plot\.pdf.*\.svg or \.png"):
        plot.check_plot(tmp_path / "plot.pdf")
    with pytest.raises(UsageError, match=r"plot\.svg: folder .*/no "):
        plot.check_plot(tmp_path / "no" / "plot.svg")
