from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from controller.cli.tables import average, index_row, reasons, report_table, summary, table, waits
from controller.jobs.cost import Price, cost
from controller.jobs.results import IndexReport
from controller.jobs.state import LostNode, Phase, Stage
from controller.jobs.usage import Gpu, Usage
from tests.controller.cli.run_states import EMBED, PLAN, RUN, SCHEDULER
from tests.controller.states import job


def render(*renderables: Any, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=300, force_terminal=terminal, color_system=None)
    for renderable in renderables:
        console.print(renderable, soft_wrap=True)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def row(text: str, stage: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(stage)).split()


def test_the_table_has_a_row_a_stage() -> None:
    text = render(table("r1", RUN, rate=2.5))
    assert row(text, "plan") == ["plan", "complete", "80"]
    assert row(text, "embed") == [
        "embed",
        "active",
        "2/8",
        "(2",
        "active,",
        "1",
        "failed)",
        "25/80",
        "1",
        "2.5",
        "0:22",
    ]
    assert row(text, "ingest") == ["ingest", "waiting"]
    assert "cost" not in text


@pytest.mark.parametrize(("done", "left"), [(20, 30.0), (79, 0.5), (80, None)])
def test_an_ingest_has_a_rate_and_a_time_that_is_left(done: int, left: float | None) -> None:
    figures = ingest_figures(done, images=80, rate=2.0)
    assert figures["rate"] == 2.0
    assert figures["left_seconds"] == left


@pytest.mark.parametrize(("done", "rate", "seconds"), [(87_000, 967, 1_687), (555_334, 589, 961), (952_500, 478, 109)])
def test_the_time_that_is_left_of_a_large_ingest_counts_with_its_slowing(
    done: int, rate: float, seconds: float
) -> None:
    """The rates of the last minute and the seconds to the end, of one ingest of a million."""
    assert ingest_figures(done, images=1_000_000, rate=rate)["left_seconds"] == pytest.approx(seconds, rel=0.15)


def ingest_figures(done: int, *, images: int, rate: float) -> dict[str, Any]:
    plan = job(Stage.PLAN, indexes={0: IndexReport({"shards": 8, "images": images})})
    ingest = job(Stage.INGEST, Phase.ACTIVE, indexes={0: IndexReport(None, done, images)})
    return summary(ingest, {Stage.PLAN: plan, Stage.INGEST: ingest}, rate=rate)


def test_what_gpus_have_cost_is_shown_where_a_price_is_known() -> None:
    text = render(table("r1", RUN, gpu_hour_price=1234.5))
    assert text.splitlines()[1].split()[-1] == "cost"
    assert row(text, "embed")[-1] == "1,851.75"
    assert row(text, "plan")[-1] == "80", "what held no GPU has cost nothing"
    assert summary(EMBED, RUN, gpu_hour_price=2.0)["cost"] == 3.0
    assert summary(EMBED, RUN)["cost"] is None
    assert summary(EMBED, RUN)["gpu_hours"] == 1.5


def test_a_summary_says_how_the_indexes_stand_and_why_pods_wait() -> None:
    values = summary(EMBED, RUN)
    assert (values["done"], values["failed"], values["active"], values["of"]) == (2, 1, 2, 8)
    assert (values["images"], values["images_of"], values["bad"]) == (25, 80, 1)
    assert values["waiting"] == {SCHEDULER: 3}
    assert values["errors"] == {"5": "a[b].parquet [/red] is damaged"}


def test_the_rate_is_that_of_the_whole_time_where_none_was_watched() -> None:
    active = replace(EMBED, started="2026-01-01T00:00:00Z")
    assert average(active, datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)) == 2.5
    assert average(EMBED, datetime(2026, 1, 1, tzinfo=UTC)) is None, "it has not begun"
    complete = replace(active, phase=Phase.COMPLETE, finished="2026-01-01T00:00:50Z")
    assert row(render(table("r1", {Stage.PLAN: PLAN, Stage.EMBED: complete})), "embed")[-1] == "0.5"


def test_a_suspended_job_is_shown_as_such() -> None:
    text = render(table("r1", {Stage.PLAN: PLAN, Stage.EMBED: job(Stage.EMBED, Phase.SUSPENDED, completions=8)}))
    assert row(text, "embed")[1] == "suspended"


@pytest.mark.parametrize("terminal", [True, False])
def test_reasons_are_in_the_words_of_kubernetes_brackets_and_all(terminal: bool) -> None:
    text = render(*reasons(RUN), terminal=terminal)
    assert "embed shard 5: a[b].parquet [/red] is damaged" in text
    assert f"embed: 3 pods wait: {SCHEDULER}" in text


def test_one_pod_waits() -> None:
    jobs = {Stage.PLAN: job(Stage.PLAN, Phase.ACTIVE, waiting={"ErrImagePull": 1})}
    assert render(*reasons(jobs)) == "plan: 1 pod waits: ErrImagePull\n"
    jobs_with_time = {
        Stage.PLAN: job(Stage.PLAN, Phase.ACTIVE, waiting={"no room": 2}, waiting_since="2026-01-01T00:00:00Z")
    }
    assert render(*reasons(jobs_with_time)) == "plan: 2 pods wait (since 2026-01-01T00:00:00Z): no room\n"


def test_a_node_that_does_not_answer_is_named_with_the_commands_that_free_it() -> None:
    jobs = {Stage.EMBED: job(Stage.EMBED, Phase.ACTIVE, lost_nodes=[LostNode("gpu-7", "2026-01-01T01:00:00Z", 1)])}
    text = render(*reasons(jobs))
    assert text.startswith("embed: node gpu-7 does not answer (since 2026-01-01T01:00:00Z), so 1 pod cannot end")
    assert "`kubectl delete node gpu-7`" in text
    assert "`kubectl taint nodes gpu-7 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`" in text
    assert summary(jobs[Stage.EMBED], jobs)["lost_nodes"] == [
        {"name": "gpu-7", "since": "2026-01-01T01:00:00Z", "pods": 1}
    ]


def test_only_the_first_of_many_errors_are_shown() -> None:
    failed_job = job(Stage.EMBED, Phase.FAILED, completions=9, failed=frozenset(range(9)))
    lines = render(*reasons({Stage.EMBED: failed_job})).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "embed: 4 more shards failed; -o json has them all"


def test_a_job_that_waits_in_a_queue_names_it_with_the_reason_of_kueue() -> None:
    queued = job(Stage.EMBED, Phase.SUSPENDED, queue="gpus", queued="LocalQueue gpus doesn't exist")
    jobs = {Stage.PLAN: PLAN, Stage.EMBED: queued}
    assert waits(jobs) == ["embed: waits in queue gpus: LocalQueue gpus doesn't exist"]
    assert summary(queued, jobs)["queued"] == "gpus: LocalQueue gpus doesn't exist"
    admitted = replace(queued, queued="")
    assert waits({Stage.EMBED: admitted}) == []
    assert summary(admitted, jobs)["queued"] == ""


def test_a_job_that_failed_as_a_whole_has_its_own_reason() -> None:
    failed_job = job(Stage.PLAN, Phase.FAILED, reason="Job was active longer than specified deadline")
    assert render(*reasons({Stage.PLAN: failed_job})) == "plan: Job was active longer than specified deadline\n"


REPORT = {
    "run": "r1",
    "index": "photos",
    "source": "/photos [old]",
    "model": "a/b",
    "dim": 512,
    "published": "2026-01-01",
    "images": 9,
    "bad": 1,
    "embed_seconds": 12.0,
    "shards": 1,
    "embed_stages": {"read": 1.5},
    "ingest_seconds": 1.0,
    "ingest_stages": {},
    "vectors_added": 9,
    "verified": {"count": 9},
    "kept": 0,
    "removed": 0,
    "skipped": {".txt files": 2},
    "bad_reasons": {"[Errno 2] x": 1},
}


def test_a_report_shows_names_with_brackets() -> None:
    text = render(report_table(REPORT))
    assert "/photos [old]" in text
    assert "[Errno 2] x" in text
    assert "12.0 s in 1 shard (read 1.5)" in text
    assert "recall" not in text  # that of an earlier version


def test_an_index_has_the_lowest_recall_of_its_kinds_of_queries() -> None:
    row = {"index": "photos", "run": "r1", "previous": None}
    recall = {"images": {"10": 1.0, "100": 0.5}, "texts": {"10": 0.9876, "100": 1.0}}
    assert index_row({**row, "recall": recall}) == {**row, "recall@10": "0.9876"}
    assert index_row({**row, "recall": {}}) == index_row(row) == {**row, "recall@10": None}


def test_a_report_shows_the_recall() -> None:
    figures = [{"queries": kind, "k": 10, "mean": 0.9876, "worst": 0.9} for kind in ("images", "texts")]
    text = render(report_table({**REPORT, "recall": figures}))
    assert "@10 of images 0.9876 (worst twentieth 0.9000); @10 of texts 0.9876 (worst twentieth 0.9000)" in text
    assert "warning" not in text
    warned = render(report_table({**REPORT, "recall": figures, "recall_warning": "recall@10 is too low"}))
    assert "recall@10 is too low" in warned


def cost_lines(hours: Mapping[Gpu, float], prices: Mapping[str, list[Price]], **fields: Any) -> list[list[str]]:
    """The lines of a report that tell of it, without its first and last ones."""
    estimate = cost(replace(EMBED, usage=Usage(observed=hours), **fields), hour_price=None, prices=prices)
    lines = render(report_table({**REPORT, "cost": estimate})).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("skipped")) + 1
    return [[cell.strip() for cell in line.split("  ", 1)] for line in lines[first:-1]]


def test_a_report_says_what_ran_and_what_it_would_have_cost_elsewhere() -> None:
    assert cost_lines(EMBED.usage.observed, {"L4": [Price("gcp", 0.7, 0.25), Price("aws", 0.8, None)]}) == [
        ["gpu hours", "1.50: L4 spot 1.20 at 0.25, L4 0.30 at 0.70"],
        ["cost", "0.51, 20,400.00 for a million images"],
        ["at gcp", "1.05, 0.38 on spot"],
        ["at aws", "1.20"],
    ]


def test_a_report_without_a_price_says_what_ran() -> None:
    assert cost_lines({Gpu("", True): 1.0, Gpu("T4"): 0.5}, {}) == [
        ["gpu hours", "1.50: GPU spot 1.00 no price known, T4 0.50 no price known"]
    ]
    assert cost_lines({}, {}) == []
