"""Progress of a run: lines in a pipe, a table on a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console

from controller.cli.progress import Rate, RunView
from controller.jobs.results import IndexReport
from controller.jobs.state import JobState, Phase, Stage
from tests.controller.cli.run_states import PLAN, RUN, SCHEDULER
from tests.controller.conftest import Clock
from tests.controller.states import job


def show_moments(console: Console, *moments: Mapping[Stage, JobState]) -> str:
    view = RunView("r1", console, clock=Clock())
    with view:
        for jobs in moments:
            view.show(jobs)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_in_a_pipe_each_change_is_a_line() -> None:
    console = Console(file=io.StringIO(), width=80)
    lines = show_moments(console, {}, {}, {Stage.PLAN: PLAN}, RUN, RUN).splitlines()
    assert lines == [
        "run r1: starting",
        "run r1: plan complete, 80 images",
        "run r1: plan complete, 80 images; embed active, 2/8 shards, 25/80 images, 1 bad, 1 failed; "
        f"embed: 3 pods wait: {SCHEDULER}",
    ]


def test_on_a_terminal_it_is_a_table_with_what_pods_wait_for() -> None:
    console = Console(file=io.StringIO(), width=300, height=50, force_terminal=True, color_system=None)
    text = show_moments(console, RUN)
    assert "2/8 (2 active, 1 failed)" in text
    assert f"embed: 3 pods wait: {SCHEDULER}" in text


def ingesting(done: int) -> dict[Stage, JobState]:
    embed = job(Stage.EMBED, Phase.COMPLETE, indexes={0: IndexReport({"images": 80, "bad": 0})})
    ingest = job(Stage.INGEST, Phase.ACTIVE, indexes={0: IndexReport(None, done, 80)})
    return {Stage.PLAN: PLAN, Stage.EMBED: embed, Stage.INGEST: ingest}


def test_the_rate_of_ingest_is_that_of_the_last_minute() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate.update({Stage.PLAN: PLAN}) is None
    assert rate.update(RUN) is None
    clock.now += 10
    assert rate.update(ingesting(0)) is None, "the images of the embedding do not count"
    rates = []
    for done in (20, 40, 44, 48, 52, 56):
        clock.now += 20
        rates.append(rate.update(ingesting(done)))
    assert rates == [1.0, 1.0, 44 / 60, 28 / 60, 12 / 60, 12 / 60]
