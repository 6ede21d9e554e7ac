"""`controller run-pipeline`: indexes a source."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from controller.cli.console import Terminal
from controller.cli.metrics import RunMetrics
from controller.cli.options import RunOptions, add_options, add_target, read_options, read_target
from controller.cli.progress import RunView
from controller.cli.settings import metrics_port, overridden, with_run
from controller.cli.tables import plural
from controller.cli.targets import open_target
from controller.cli.targets.base import Target
from controller.jobs.results import IngestResult
from controller.jobs.state import JobState, Phase, Stage, ingested
from controller.run.loop import Pipeline
from controller.run.steps import Failed, Finished
from imgsearch.errors import ExitCode
from imgsearch.metrics import exposed
from imgsearch.settings import RunSettings, Settings

HELP = "Index a source: plan, embed, ingest, verify and publish. The same command resumes a run."
LAST_SCRAPE_SECONDS = 60.0
"""After a run, the metrics stay available until one more scrape, but at most for this time: otherwise nobody would see
how it ended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, RunOptions)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    options = read_options(RunOptions, args)
    target = open_target(read_target(args), env)
    settings = _settings(options, target)
    if options.detach:
        return _detach(options, target, settings, terminal)
    backend = target.run_backend(options, settings)
    capacity, placement = target.resources(options, settings)
    view = RunView(settings.run.id, terminal.err, gpu_hour_price=settings.jobs.gpu_hour_price)
    metrics = RunMetrics(settings.run.id, settings.run.index)

    def show(jobs: Mapping[Stage, JobState]) -> None:
        view.show(jobs)
        metrics.show(jobs)

    pipeline = Pipeline(
        backend,
        settings,
        release=target.release,
        capacity=capacity,
        placement=placement,
        show=show,
        warn=terminal.warn,
        scaler=target.scaler,
        events=target.events,
    )
    if options.dry_run:
        # The plan decides the number of shards. Before it exists, the embed Job is shown with one.
        _dry_run([pipeline.manifest(stage, 1) for stage in Stage], target, terminal)
        return ExitCode.DONE
    target.require_programs()
    was_done = _is_done(backend.jobs(settings.run.id))
    try:
        with view, exposed(metrics.registry, metrics_port(env), last_read=LAST_SCRAPE_SECONDS):
            end, jobs = pipeline.run()
    except KeyboardInterrupt:
        terminal.note(target.interrupted(settings.run.id))
        raise
    finally:
        backend.close()
    if isinstance(end, Failed):
        return _show_failure(end, target, settings, terminal)
    _show_result(end, jobs, target, settings, terminal, was_done=was_done, update=options.update)
    return ExitCode.DONE


def _settings(options: RunOptions, target: Target) -> Settings:
    source, model = target.source(options.source), target.model(options.model)
    return with_run(
        overridden(target.settings, options.overrides),
        source=source,
        index=options.index,
        model=model,
        run=options.run,
        shard_images=options.shard_size,
        base=target.base(options.index, options.run) if options.update else None,
    )


def _detach(options: RunOptions, target: Target, settings: Settings, terminal: Terminal) -> int:
    job = target.controller_job(options, settings)
    if options.dry_run:
        _dry_run([job], target, terminal)
        return ExitCode.DONE
    target.start_controller(job)
    run = settings.run.id
    terminal.say(f"run {run} continues in the cluster: controller status {run} --watch{target.flags}")
    return ExitCode.DONE


def _dry_run(jobs: Sequence[Mapping[str, Any]], target: Target, terminal: Terminal) -> None:
    terminal.yaml(jobs)
    for job in jobs:
        target.check(job)


def _is_done(jobs: Mapping[Stage, JobState]) -> bool:
    return Stage.INGEST in jobs and all(job.phase is Phase.COMPLETE for job in jobs.values())


def _show_failure(end: Failed, target: Target, settings: Settings, terminal: Terminal) -> int:
    run, flags = settings.run.id, target.flags
    shard = "SHARD" if end.stage is Stage.EMBED else f"0 --stage {end.stage}"
    terminal.error(f"{end.stage}: {target.with_flags(end.reason)}")
    terminal.note(
        f"For details: `controller status {run}{flags}` and `controller logs {run} {shard}{flags}`. The same command "
        "tries the missing parts again"
    )
    return ExitCode.FAILED


def _show_result(
    end: Finished,
    jobs: Mapping[Stage, JobState],
    target: Target,
    settings: Settings,
    terminal: Terminal,
    *,
    was_done: bool,
    update: bool,
) -> None:
    run = settings.run
    if not end.changed:
        terminal.say(f"nothing has changed since run {run.base}: index {run.index} stays as it is")
        return
    if was_done:
        serving = target.published(run.index)  # first, since a store that is lost or damaged ends the command
        advice = "--update with another --run, or without --run," if update else "--update"
        terminal.say(
            f"run {run.id} is done already, nothing was changed. Use {advice} to index images that are new or changed "
            "since then"
        )
    else:
        # The report has the result as well, where the pod of the ingest was gone before anybody read it.
        result = ingested(jobs) or _reported(target, run)
        bad = (
            f", {result.bad:,} could not be used (controller report {run.id} --bad{target.flags})" if result.bad else ""
        )
        terminal.say(f"index {result.index}: {plural(result.images, 'image')} searchable{bad}")
        serving = result.published
    if serving not in (None, run.id):  # after a rollback, or where a later run was published
        terminal.say(f"index {run.index} still serves run {serving}")


def _reported(target: Target, run: RunSettings) -> IngestResult:
    report = target.query("report", RunSettings(id=run.id))
    return IngestResult.from_json({**report, "published": target.published(run.index)}, f"the report of run {run.id}")
