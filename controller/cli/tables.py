"""What a person sees of a run: a live table on a terminal, a line per change in a pipe, JSON on request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from controller.jobs.results import PlanResult
from controller.jobs.state import JobState, Phase, Stage, planned

RATE_SECONDS = 20.0
"""The rate is that of the last so many seconds, so that it follows what happens now."""


class Rate:
    """Images a second, over a sliding window."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int) -> float | None:
        """None until the count has moved."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        (then, before), seconds = self._seen[0], now - self._seen[0][0]
        return (done - before) / seconds if done > before and seconds > 0 and then < now else None


def average(job: JobState, until: datetime) -> float | None:
    """Images a second since a Job began; None before the first."""
    if not job.started or not job.images_done:
        return None
    seconds = (until - datetime.fromisoformat(job.started)).total_seconds()
    return job.images_done / seconds if seconds > 0 else None


class RunView:
    """Shows a run while it goes on. A context manager: the live table ends with it."""

    def __init__(
        self,
        run: str,
        console: Console,
        *,
        gpu_hour_price: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._price = gpu_hour_price
        self._console = console
        self._rate = Rate(clock)
        self._line: str | None = None
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> RunView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, jobs: Mapping[Stage, JobState]) -> None:
        embed = jobs.get(Stage.EMBED)
        rate = self._rate.update(embed.images_done) if embed and embed.phase is Phase.ACTIVE else None
        if self._live:
            shown = table(self._run, jobs, rate, gpu_hour_price=self._price)
            self._live.update(Group(shown, *reasons(jobs)), refresh=True)
            return
        line = "; ".join([*(_words(job, jobs) for job in jobs.values()), *_waits(jobs)])
        if line != self._line:
            self._line = line
            self._console.print(f"run {self._run}: {line or 'starting'}", highlight=False, markup=False, soft_wrap=True)


def table(
    run: str, jobs: Mapping[Stage, JobState], rate: float | None = None, *, gpu_hour_price: float | None = None
) -> Table:
    """One row a stage. What it has cost is shown where a price is given."""
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
        about = summary(job, jobs, rate, gpu_hour_price=gpu_hour_price)
        rows.add_row(
            stage,
            f"[{styles[job.phase]}]{job.phase}[/]",
            _shards(about) if stage is Stage.EMBED else "",
            _of(about["images"], about["images_of"]),
            str(about["bad"]) if about["bad"] else "",
            f"{about['rate']:.1f}" if about["rate"] else "",
            _duration(about["left_seconds"]),
            *([f"{about['cost']:,.2f}"] if about["cost"] else []),
        )
    return rows


def report_table(report: Mapping[str, Any]) -> Table:
    """What became of a run's images, from `python -m searcher report`."""
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
    if report["kept"] or report["removed"]:
        facts["update"] = f"{report['kept']:,} images kept, {report['removed']:,} removed"
    if report["skipped"]:
        facts["passed over"] = ", ".join(f"{count} {what}" for what, count in report["skipped"].items())
    if cost := report.get("cost"):
        facts["gpu hours"] = f"{cost['gpu_hours']:,.2f}: {', '.join(map(_ran, cost['ran']))}"
        if cost["total"] is not None:
            facts["cost"] = f"{cost['total']:,.2f}" + (
                f", {cost['million_images']:,.2f} for a million images" if cost["million_images"] is not None else ""
            )
        for each in cost["elsewhere"]:
            spot = "" if each["on_spot"] is None else f", {each['on_spot']:,.2f} on spot"
            facts[f"at {each['cloud']}"] = f"{each['total']:,.2f}{spot}"
    for name, value in facts.items():
        rows.add_row(f"[dim]{name}[/]", escape(str(value)))
    for reason, count in report["bad_reasons"].items():
        rows.add_row(f"[dim]bad: {count:,}[/]", escape(reason))
    return rows


def _ran(part: Mapping[str, Any]) -> str:
    spot = " spot" if part["spot"] else ""
    price = "no price known" if part["hour_price"] is None else f"at {part['hour_price']:,.2f}"
    return f"{part['accelerator'] or 'GPU'}{spot} {part['gpu_hours']:,.2f} {price}"


def _stages(seconds: Mapping[str, float]) -> str:
    return f" ({', '.join(f'{name} {spent:,.1f}' for name, spent in seconds.items())})" if seconds else ""


def reasons(jobs: Mapping[Stage, JobState]) -> list[str]:
    """Why what failed did and what waits does, a line each, with rich's markup: the first few indexes, or the Job."""
    told = []
    for job in jobs.values():
        errors = job.errors()
        shard = " shard {}" if job.stage is Stage.EMBED else ""
        told += [f"{job.stage}{shard.format(index)}: {error}" for index, error in list(errors.items())[:5]]
        if len(errors) > 5:
            told.append(f"{job.stage}: {len(errors) - 5} more shards failed; -o json has them all")
        if job.phase is Phase.FAILED and not errors:
            told.append(f"{job.stage}: {job.reason}")
    return [f"[red]{escape(line)}[/]" for line in told] + [f"[yellow]{escape(line)}[/]" for line in _waits(jobs)]


def _waits(jobs: Mapping[Stage, JobState]) -> list[str]:
    """Why pods do not begin, in the scheduler's or the node's own words, and since when none of a Job has a node."""
    told = []
    for job in jobs.values():
        since = f" (since {job.waiting_since})" if job.waiting_since else ""
        for reason, count in job.waiting.items():
            told.append(f"{job.stage}: {plural(count, 'pod')} {'waits' if count == 1 else 'wait'}{since}: {reason}")
    return told


def summary(
    job: JobState,
    jobs: Mapping[Stage, JobState],
    rate: float | None = None,
    *,
    gpu_hour_price: float | None = None,
) -> dict[str, Any]:
    """One Job in figures, for the table and for `-o json`. `rate` is that of an embedding that goes on."""
    plan = planned(jobs) or PlanResult(shards=0, images=0, kept=0, removed=0)
    images_of = plan.images + (plan.kept if job.stage is Stage.INGEST else 0)
    done = plan.images if job.stage is Stage.PLAN else job.images_done
    embedding = job.stage is Stage.EMBED and job.phase is Phase.ACTIVE
    if not embedding:
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
        "left_seconds": (images_of - done) / rate if embedding and rate else None,
        "started": job.started,
        "finished": job.finished,
        "reason": job.reason,
        "waiting": dict(job.waiting),
        "waiting_since": job.waiting_since,
        "gpu_hours": round(job.usage.total, 4),
        "cost": None if gpu_hour_price is None else round(job.usage.total * gpu_hour_price, 4),
        "errors": {str(index): error for index, error in job.errors().items()},
    }


def _words(job: JobState, jobs: Mapping[Stage, JobState]) -> str:
    about = summary(job, jobs)
    words = f"{job.stage} {job.phase}"
    if job.stage is Stage.EMBED:
        words += f", {about['done']}/{about['of']} shards"
    if about["images"] or about["images_of"]:
        words += f", {_of(about['images'], about['images_of'])} images"
    if about["bad"]:
        words += f", {about['bad']} bad"
    if about["failed"]:
        words += f", {about['failed']} failed"
    return words


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shards(about: Mapping[str, Any]) -> str:
    words = f"{about['done']}/{about['of']}"
    parts = [f"{about[what]} {what}" for what in ("active", "failed") if about[what]]
    return f"{words} ({', '.join(parts)})" if parts else words


def _of(done: int, total: int) -> str:
    return f"{done:,}" if done == total else f"{done:,}/{total:,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
