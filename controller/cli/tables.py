"""The tables of the commands, and the figures in them: of a run, its report and an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from controller.jobs.results import PlanResult
from controller.jobs.state import JobState, Phase, Stage, planned

Evaluation = Mapping[str, Any]
"""The document of `python -m searcher evaluate`, or a part of it."""
WEAKEST_LABELS = 5


STEADY = 50_000
"""Up to this number of vectors, ingest keeps its rate."""
SLOWING = 0.31
"""Beyond it, the time of a vector grows with this power of the vectors that the store has: fitted to an ingest of a
million (`python -m bench million`)."""


def average(job: JobState, until: datetime) -> float | None:
    """Images a second since a Job began; None before the first image. A Job in a queue has none: its start is that of
    its last admission."""
    if not job.started or not job.images_done or job.queue:
        return None
    seconds = (until - datetime.fromisoformat(job.started)).total_seconds()
    return job.images_done / seconds if seconds > 0 else None


def working(jobs: Mapping[Stage, JobState]) -> JobState | None:
    """The active job that works on images, if there is one: it embeds or ingests them."""
    active = (job for job in jobs.values() if job.phase is Phase.ACTIVE and job.stage is not Stage.PLAN)
    return next(active, None)


def table(
    run: str, jobs: Mapping[Stage, JobState], rate: float | None = None, *, gpu_hour_price: float | None = None
) -> Table:
    """One row a stage, with its cost where there is a price."""
    rows = Table(title=f"run {run}", title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    priced = ["cost"] if gpu_hour_price is not None else []
    for heading in ("stage", "state", "shards", "images", "bad", "images/s", "left", *priced):
        rows.add_column(heading, justify="left" if heading in ("stage", "state") else "right", header_style="dim")
    styles = {Phase.COMPLETE: "green", Phase.FAILED: "red", Phase.ACTIVE: "cyan", Phase.SUSPENDED: "yellow"}
    for stage in Stage:
        job = jobs.get(stage)
        if job is None:
            rows.add_row(stage, "[dim]waiting[/]")
            continue
        figures = summary(job, jobs, rate, gpu_hour_price=gpu_hour_price)
        rows.add_row(
            stage,
            f"[{styles[job.phase]}]{job.phase}[/]",
            _shards(figures) if stage is Stage.EMBED else "",
            of_total(figures["images"], figures["images_of"]),
            str(figures["bad"]) if figures["bad"] else "",
            f"{figures['rate']:.1f}" if figures["rate"] else "",
            _duration(figures["left_seconds"]),
            *([f"{figures['cost']:,.2f}"] if figures["cost"] else []),
        )
    return rows


def index_row(index: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table of indexes. It has one recall, the lowest recall@10 of all kinds of queries."""
    recall = index.get("recall", {})  # a searcher of an earlier version has none
    lowest = min((by_k["10"] for by_k in recall.values()), default=None)
    row = {name: value for name, value in index.items() if name != "recall"}
    return {**row, "recall@10": None if lowest is None else f"{lowest:.4f}"}


def report_table(report: Mapping[str, Any]) -> Table:
    """The outcome of a run's images, from `python -m searcher report`."""
    rows = Table(show_header=False, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    facts: dict[str, object] = {
        "run": report["run"],
        "index": report["index"],
        "source": report["source"],
        "model": f"{report['model']} ({report['dim']}-d)",
        "published": report["published"],
        "searchable": plural(report["images"], "image"),
        "bad": plural(report["bad"], "image"),
        "embedding": f"{report['embed_seconds']:,.1f} s in {plural(report['shards'], 'shard')}"
        + _stages(report["embed_stages"]),
        "ingest": f"{report['ingest_seconds']:,.1f} s, {report['vectors_added']:,} vectors added"
        + _stages(report["ingest_stages"]),
        "verified": ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report["verified"].items()),
    }
    if recall := report.get("recall"):
        facts["recall"] = "; ".join(map(_recall, recall))
    if warning := report.get("recall_warning"):
        facts["warning"] = warning
    if report["kept"] or report["removed"]:
        facts["update"] = f"{report['kept']:,} images kept, {report['removed']:,} removed"
    if report["skipped"]:
        facts["skipped"] = ", ".join(f"{count} {kind}" for kind, count in report["skipped"].items())
    if cost := report.get("cost"):
        facts["gpu hours"] = f"{cost['gpu_hours']:,.2f}: {', '.join(map(_ran, cost['ran']))}"
        if cost["total"] is not None:
            facts["cost"] = f"{cost['total']:,.2f}" + (
                f", {cost['million_images']:,.2f} for a million images" if cost["million_images"] is not None else ""
            )
        for offer in cost["elsewhere"]:
            spot = "" if offer["on_spot"] is None else f", {offer['on_spot']:,.2f} on spot"
            facts[f"at {offer['cloud']}"] = f"{offer['total']:,.2f}{spot}"
    for name, value in facts.items():
        rows.add_row(f"[dim]{name}[/]", escape(str(value)))
    for reason, count in report["bad_reasons"].items():
        rows.add_row(f"[dim]bad: {count:,}[/]", escape(reason))
    return rows


def _recall(figure: Mapping[str, Any]) -> str:
    return f"@{figure['k']} of {figure['queries']} {figure['mean']:.4f} (worst twentieth {figure['worst']:.4f})"


def _ran(part: Mapping[str, Any]) -> str:
    spot = " spot" if part["spot"] else ""
    price = "no price known" if part["hour_price"] is None else f"at {part['hour_price']:,.2f}"
    return f"{part['accelerator'] or 'GPU'}{spot} {part['gpu_hours']:,.2f} {price}"


def _stages(seconds: Mapping[str, float]) -> str:
    return f" ({', '.join(f'{name} {spent:,.1f}' for name, spent in seconds.items())})" if seconds else ""


def reasons(jobs: Mapping[Stage, JobState]) -> list[str]:
    """A line with rich's markup for each reason why a Job failed or waits. Of many shards, the first few."""
    failures = []
    for job in jobs.values():
        errors = job.errors()
        shard = " shard {}" if job.stage is Stage.EMBED else ""
        failures += [f"{job.stage}{shard.format(index)}: {error}" for index, error in list(errors.items())[:5]]
        if len(errors) > 5:
            failures.append(f"{job.stage}: {len(errors) - 5} more shards failed; -o json has them all")
        if job.phase is Phase.FAILED and not errors:
            failures.append(f"{job.stage}: {job.reason}")
    return [f"[red]{escape(line)}[/]" for line in failures] + [f"[yellow]{escape(line)}[/]" for line in waits(jobs)]


def waits(jobs: Mapping[Stage, JobState]) -> list[str]:
    """A line for each reason why a Job or its pods wait, in the words of Kueue, the scheduler or the node, and since
    when pods wait; and for each node that does not answer."""
    lines = []
    for job in jobs.values():
        lines += [f"{job.stage}: {node.problem}" for node in job.lost_nodes]
        if job.queued:
            lines.append(f"{job.stage}: waits in queue {job.queue}: {job.queued}")
        lines += [
            f"{job.stage}: {plural(count, 'pod')} cannot be created: {reason}" for reason, count in job.refused.items()
        ]
        since = f" (since {job.waiting_since})" if job.waiting_since else ""
        for reason, count in job.waiting.items():
            lines.append(f"{job.stage}: {plural(count, 'pod')} {'waits' if count == 1 else 'wait'}{since}: {reason}")
    return lines


def summary(
    job: JobState,
    jobs: Mapping[Stage, JobState],
    rate: float | None = None,
    *,
    gpu_hour_price: float | None = None,
) -> dict[str, Any]:
    """One Job in figures, for the table and for `-o json`. `rate` is that of the job that works."""
    plan = planned(jobs) or PlanResult(shards=0, images=0)
    images_of = plan.images + (plan.kept if job.stage is Stage.INGEST else 0)
    done = plan.images if job.stage is Stage.PLAN else job.images_done
    works = job is working(jobs)
    if not works:
        ended = job.stage is Stage.EMBED and job.phase is Phase.COMPLETE
        rate = average(job, datetime.fromisoformat(job.finished)) if ended and job.finished else None
    return {
        "stage": str(job.stage),
        "state": str(job.phase),
        "done": len(job.succeeded),
        "failed": len(job.failed),
        "active": job.active,
        "of": job.completions,
        "images": done,
        "images_of": images_of,
        "bad": job.images_bad,
        "rate": rate,
        "left_seconds": _left_seconds(job.stage, done, images_of, rate) if works and rate else None,
        "started": job.started,
        "finished": job.finished,
        "reason": job.reason,
        "waiting": dict(job.waiting),
        "refused": dict(job.refused),
        "waiting_since": job.waiting_since,
        "lost_nodes": [dataclasses.asdict(node) for node in job.lost_nodes],
        "queued": f"{job.queue}: {job.queued}" if job.queued else "",
        "gpu_hours": round(job.usage.total, 4),
        "cost": None if gpu_hour_price is None else round(job.usage.total * gpu_hour_price, 4),
        "errors": {str(index): error for index, error in job.errors().items()},
    }


def _left_seconds(stage: Stage, done: int, images: int, rate: float) -> float | None:
    """None where the images are done, and other work is left."""
    if done >= images:
        return None
    if stage is not Stage.INGEST:
        return (images - done) / rate
    steady = max(0, min(images, STEADY) - done)
    start = max(done, STEADY)
    slowing = start / (1 + SLOWING) * ((images / start) ** (1 + SLOWING) - 1) if images > start else 0  # the integral
    return (steady + slowing) / rate


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shards(figures: Mapping[str, Any]) -> str:
    words = f"{figures['done']}/{figures['of']}"
    parts = [f"{figures[state]} {state}" for state in ("active", "failed") if figures[state]]
    return f"{words} ({', '.join(parts)})" if parts else words


def of_total(done: int, total: int) -> str:
    return f"{done:,}" if done == total else f"{done:,}/{total:,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def evaluation_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row for each measure: of one index with its interval, of two with their difference."""
    indexes = evaluation["indexes"]
    return [_compared(figure, indexes) if len(indexes) > 1 else _measured(figure) for figure in evaluation["figures"]]


def evaluated_index(index: Evaluation) -> str:
    """The index, its model and the fields of its metadata that were used."""
    fields = [f"{name} in {index[name]!r}" for name in ("labels", "captions") if index[name]]
    return ", ".join([f"index {index['index']}: {index['images']:,} images", f"model {index['model']}", *fields])


def weakest_labels(index: Evaluation) -> list[dict[str, Any]]:
    """The labels whose names find the fewest of their images."""
    return [
        {"weakest labels": label["label"], "images": label["images"], "first at": label["first_at"]}
        | {name: f"{value:.2f}" for name, value in label.items() if name.startswith("precision")}
        for label in index["by_label"][:WEAKEST_LABELS]
    ]


def _measured(figure: Evaluation) -> dict[str, Any]:
    (score,) = figure["indexes"]
    return {
        "asked with": figure["of"],
        "figure": figure["figure"],
        "score": f"{score['value']:.3f}",
        "95 %": f"{score['low']:.3f} to {score['high']:.3f}",
        "at best": "" if score["at_best"] == 1 else f"{score['at_best']:.3f}",
        "queries": score["queries"],
    }


def _compared(figure: Evaluation, indexes: Sequence[Evaluation]) -> dict[str, Any]:
    difference = figure["difference"]
    scores = {
        index["index"]: "" if score is None else f"{score['value']:.3f}"
        for index, score in zip(indexes, figure["indexes"], strict=True)
    }
    return {
        "asked with": figure["of"],
        "figure": figure["figure"],
        **scores,
        "difference": f"{difference['value']:+.3f}" if difference else "",
        "95 %": f"{difference['low']:+.3f} to {difference['high']:+.3f}" if difference else "",
        "queries of both": difference["queries"] if difference else 0,
    }
