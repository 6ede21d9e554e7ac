"""What `controller evaluate` has measured, as a person reads it: tables, and a plot."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgsearch import distribution
from imgsearch.errors import UsageError

KINDS = {
    "recall": "recall: the store against exact search",
    "R": "R: something right among the first k",
    "precision": "precision: the right ones among the first k",
}
PLOTS = (".svg", ".png")
WEAKEST = 5

Told = Mapping[str, Any]


def rows(told: Told) -> list[dict[str, Any]]:
    """A row for each figure: of one index with its interval, of two with their difference."""
    return [_pair(each, told["indexes"]) if len(told["indexes"]) > 1 else _single(each) for each in told["figures"]]


def about(index: Told) -> str:
    """What was measured."""
    fields = [f"{name} in {index[name]!r}" for name in ("labels", "captions") if index[name]]
    return ", ".join([f"index {index['index']}: {index['images']:,} images", f"model {index['model']}", *fields])


def weakest(index: Told) -> list[dict[str, Any]]:
    """The labels whose names find the least of what they could."""
    return [
        {"weakest labels": each["label"], "images": each["images"], "first at": each["first_at"]}
        | {name: f"{value:.2f}" for name, value in each.items() if name.startswith("precision")}
        for each in index["by_label"][:WEAKEST]
    ]


def check_plot(file: Path) -> None:
    """Raises UsageError where no plot could be written there."""
    if file.suffix not in PLOTS:
        raise UsageError(f"--plot {file} is neither a {' nor a '.join(PLOTS)}: name the file with one of these endings")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"--plot {file}: there is no folder {file.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"--plot needs matplotlib: {distribution.install('plot')}")


def plot(told: Told, file: Path) -> None:
    """Draws each kind of figure over k, with its intervals."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in KINDS if any(_kind(each) == kind for each in told["figures"])]
    canvas = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
    for kind, axes in zip(kinds, canvas.subplots(1, len(kinds), squeeze=False)[0], strict=True):
        figures = [each for each in told["figures"] if _kind(each) == kind]
        asked = list(dict.fromkeys(each["of"] for each in figures))
        for colour, of in enumerate(asked):
            for number, index in enumerate(told["indexes"]):
                points = [
                    (_k(each), each["indexes"][number])
                    for each in figures
                    if each["of"] == of and each["indexes"][number]
                ]
                if not points:
                    continue
                values = [point["value"] for _, point in points]
                axes.errorbar(
                    [k for k, _ in points],
                    values,
                    yerr=[
                        [value - point["low"] for value, (_, point) in zip(values, points, strict=True)],
                        [point["high"] - value for value, (_, point) in zip(values, points, strict=True)],
                    ],
                    color=f"C{colour}",
                    linestyle=("-", "--")[number],
                    marker="os"[number],
                    capsize=3,
                    label=f"{of}, {index['index']}" if len(told["indexes"]) > 1 else of,
                )
        axes.set_xscale("log")
        ticks = sorted({_k(each) for each in figures})
        axes.set_xticks(ticks, [str(k) for k in ticks], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("k")
        axes.set_ylim(0, 1.02)
        axes.set_title(KINDS[kind], fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend()
    canvas.suptitle(" · ".join(f"{index['index']}: {index['images']:,} images" for index in told["indexes"]))
    canvas.savefig(file)


def _single(figure: Told) -> dict[str, Any]:
    (one,) = figure["indexes"]
    return {
        "asked with": figure["of"],
        "figure": figure["figure"],
        "score": f"{one['value']:.3f}",
        "95 %": f"{one['low']:.3f} to {one['high']:.3f}",
        "at best": "" if one["at_best"] == 1 else f"{one['at_best']:.3f}",
        "queries": one["queries"],
    }


def _pair(figure: Told, indexes: Sequence[Told]) -> dict[str, Any]:
    difference = figure["difference"]
    scores = {
        index["index"]: "" if one is None else f"{one['value']:.3f}"
        for index, one in zip(indexes, figure["indexes"], strict=True)
    }
    return {
        "asked with": figure["of"],
        "figure": figure["figure"],
        **scores,
        "difference": f"{difference['value']:+.3f}" if difference else "",
        "95 %": f"{difference['low']:+.3f} to {difference['high']:+.3f}" if difference else "",
        "queries of both": difference["queries"] if difference else 0,
    }


def _kind(figure: Told) -> str:
    return str(figure["figure"].partition("@")[0])


def _k(figure: Told) -> int:
    return int(figure["figure"].partition("@")[2])
