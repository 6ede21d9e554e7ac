"""The plot of an evaluation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from controller.cli.tables import Evaluation
from imgsearch import distribution
from imgsearch.errors import UsageError

KINDS = {
    "recall": "recall: the store against exact search",
    "R": "R: something right among the first k",
    "precision": "precision: the right ones among the first k",
}
PLOTS = (".svg", ".png")


def check_plot(file: Path) -> None:
    """Raises UsageError where no plot can be written to this file."""
    if file.suffix not in PLOTS:
        raise UsageError(f"invalid --plot {file}: the name must end with {' or '.join(PLOTS)}")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"invalid --plot {file}: folder {file.parent} does not exist")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"--plot needs matplotlib: {distribution.install('plot')}")


def plot(evaluation: Evaluation, file: Path) -> None:
    """Draws each kind of measure over k, with its intervals."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in KINDS if any(_kind(figure) == kind for figure in evaluation["figures"])]
    canvas = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
    for kind, axes in zip(kinds, canvas.subplots(1, len(kinds), squeeze=False)[0], strict=True):
        figures = [figure for figure in evaluation["figures"] if _kind(figure) == kind]
        queries = list(dict.fromkeys(figure["of"] for figure in figures))
        for colour, of in enumerate(queries):
            for number, index in enumerate(evaluation["indexes"]):
                points = [
                    (_k(figure), figure["indexes"][number])
                    for figure in figures
                    if figure["of"] == of and figure["indexes"][number]
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
                    label=f"{of}, {index['index']}" if len(evaluation["indexes"]) > 1 else of,
                )
        axes.set_xscale("log")
        ticks = sorted({_k(figure) for figure in figures})
        axes.set_xticks(ticks, [str(k) for k in ticks], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("k")
        axes.set_ylim(0, 1.02)
        axes.set_title(KINDS[kind], fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend()
    canvas.suptitle(" · ".join(f"{index['index']}: {index['images']:,} images" for index in evaluation["indexes"]))
    canvas.savefig(file)


def _kind(figure: Evaluation) -> str:
    return str(figure["figure"].partition("@")[0])


def _k(figure: Evaluation) -> int:
    return int(figure["figure"].partition("@")[2])
