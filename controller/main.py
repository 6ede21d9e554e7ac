"""The command `controller`: one function a verb. stdout has the result, stderr the progress and the errors."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # `python controller/main.py`: what is first on the path is this folder, not the project
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import importlib.util
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller import settings as given
from controller.jobs import JobState, Phase, Stage
from controller.local import RELEASE, LocalCluster
from controller.manifests import job_name
from controller.pipeline import Pipeline
from controller.plan import Failed
from controller.query import find
from controller.view import RunView, plural, reasons, summary, table
from imgsearch.errors import ExitCode, ImgsearchError, NotFound, UsageError
from imgsearch.layout import Report, RunFolder
from imgsearch.settings import RunSettings, Settings
from imgsearch.storage import Storage

HOME = Path("~/.imgsearch")
INTERRUPTED = 130


class Command:
    """One call of the program: its arguments, where it prints, and the machine it works on."""

    def __init__(self, args: argparse.Namespace, *, out: Console, err: Console, env: Mapping[str, str]) -> None:
        self.args = args
        self.out = out
        self.err = err
        self.home: Path = args.home.expanduser() if "home" in args else HOME
        self.cluster = LocalCluster(self.home, env=env)
        self.settings = given.local_settings(self.home)
        self._where = f" --home {args.home}" if "home" in args and args.home != HOME else ""

    def run_pipeline(self) -> int:
        args = self.args
        if not args.local:
            raise UsageError("say --local: this version runs the pipeline on this machine only")
        given.check_paths(args.source, args.model)
        base = self._published(args.index) if args.update else None
        settings = given.with_run(
            self.settings,
            source=args.source,
            index=args.index,
            model=args.model,
            run=args.run,
            shard_images=args.shard_size,
            base=base,
        )
        view = RunView(settings.run.id, self.err)
        pipeline = Pipeline(self.cluster, settings, release=RELEASE, parallelism=args.parallelism, show=view.show)
        if args.dry_run:
            # How many shards there will be is known once the plan is made; one stands in for them here.
            print(yaml.safe_dump_all([pipeline.manifest(stage, 1) for stage in Stage], sort_keys=False), end="")
            return ExitCode.DONE
        _need("torch", "chromadb")
        fresh = not _all_done(self.cluster.jobs(settings.run.id))
        try:
            with view:
                end, jobs = pipeline.run()
        except KeyboardInterrupt:
            self.err.print("stopping: the parts in hand are being written; the same command goes on from here")
            return INTERRUPTED
        finally:
            self.cluster.stop()
        if isinstance(end, Failed):
            shard = "SHARD" if end.stage is Stage.EMBED else f"0 --stage {end.stage}"
            self._error(f"{end.stage}: {end.reason}")
            self.err.print(
                f"the same command tries again what is missing; controller status {settings.run.id}{self._where} and "
                f"controller logs {settings.run.id} {shard}{self._where} say more",
                soft_wrap=True,
                highlight=False,
            )
            return ExitCode.FAILED
        if not end.changed:
            self.out.print(f"nothing has changed since run {base}: index {args.index} stays as it is", soft_wrap=True)
        elif fresh:
            self._tell(jobs[Stage.INGEST].result, settings)
        else:
            self.out.print(
                f"run {settings.run.id} is done already, nothing was changed; "
                "--update indexes what is new or changed in the source since",
                soft_wrap=True,
            )
            self._tell_if_another_serves(self._published(args.index), settings)
        return ExitCode.DONE

    def status(self) -> int:
        run = self._run()
        while True:
            jobs = self.cluster.jobs(run)
            if not jobs:
                raise UsageError(f"no run is called {run!r} here; `controller runs` lists them")
            if self.args.output == "json":
                print(
                    json.dumps({"run": run, "stages": [summary(job, jobs) for job in jobs.values()]}),
                    flush=True,
                )
            else:
                self.out.print(table(run, jobs))
                for reason in reasons(jobs):
                    self.out.print(f"[red]{escape(reason)}[/]", soft_wrap=True)
            if not self.args.watch or not any(job.phase is Phase.ACTIVE for job in jobs.values()):
                return ExitCode.DONE
            time.sleep(2)

    def runs(self) -> int:
        storage = Storage(self.settings.storage.uri)
        there = self.cluster.runs()
        rows = []
        for run in [*(run for run in storage.folders("runs") if run not in there), *there]:
            report = _report(storage, run)
            rows.append(
                {
                    "run": run,
                    "index": report and report.index,
                    "state": "done" if report else _stage_words(self.cluster.jobs(run)),
                    "images": report and report.images,
                    "bad": report and report.bad,
                    "source": report and report.source,
                }
            )
        return self._list(rows, empty="no runs yet; `controller run-pipeline FOLDER --local` makes one")

    def indexes(self) -> int:
        rows = self.cluster.call("searcher", "indexes", self.settings)["indexes"]
        return self._list(rows, empty="no index yet; `controller run-pipeline FOLDER --local` makes one")

    def rollback(self) -> int:
        told = self.cluster.call("searcher", "rollback", self._about(RunSettings(index=self.args.index)))
        self.out.print(f"index {told['index']} points to run {told['run']} again ({told['images']:,} images)")
        return ExitCode.DONE

    def cleanup(self) -> int:
        known = self.cluster.runs()
        runs = [self.args.run] if self.args.run else known
        if self.args.data and not self.args.run:
            raise UsageError("--data removes a run for good: name the RUN")
        if self.args.run and not self.args.data and self.args.run not in known:
            raise UsageError(f"no run is called {self.args.run!r} here; `controller runs` lists them")
        for run in runs:
            jobs = self.cluster.jobs(run)
            active = [job.stage for job in jobs.values() if job.phase is Phase.ACTIVE]
            if active:
                if self.args.run:
                    raise UsageError(f"run {run} is at work ({active[0]}): stop it first")
                continue
            if self.args.data:
                index = self._index_of(run)
                self.cluster.call("searcher", "forget", self._about(RunSettings(id=run, index=index)))
            for stage in Stage:
                self.cluster.delete(job_name(RELEASE, run, stage))
            self.out.print(f"removed {'everything' if self.args.data else 'the Jobs'} of run {run}")
        return ExitCode.DONE

    def report(self) -> int:
        storage = Storage(self.settings.storage.uri)
        run = self.args.run or next((run for run in reversed(self.cluster.runs()) if _report(storage, run)), None)
        report = _report(storage, run or self._run())
        if report is None:
            raise UsageError(f"run {run} has no report: it is not done; `controller status{self._where}` says why")
        if self.args.bad:
            sys.stdout.write(storage.get(RunFolder(report.run).bad_list).decode())
        elif self.args.output == "json":
            sys.stdout.write(report.to_json().decode())
        else:
            self._show(report)
        return ExitCode.DONE

    def logs(self) -> int:
        sys.stdout.write(self.cluster.log(self.args.run, Stage(self.args.stage), self.args.shard).read_text())
        return ExitCode.DONE

    def serve(self) -> int:
        if not self.args.local:
            raise UsageError("say --local: in a cluster the chart serves")
        _need("torch", "chromadb")
        settings = given.serving(self.settings, host=self.args.host, port=self.args.port)
        return self.cluster.program("searcher", "serve", settings)

    def search(self) -> int:
        found = find(
            httpx.Client(base_url=self.args.url, timeout=60),
            self.args.query,
            k=self.args.k,
            index=self.args.index,
        )
        if self.args.output == "json":
            print(json.dumps(found, ensure_ascii=False))
            return ExitCode.DONE
        rows = [{"score": f"{hit['score']:.3f}", "image": hit["uri"]} for hit in found["results"]]
        return self._list(rows, empty="no image found")

    def _run(self) -> str:
        run = self.args.run or next(reversed(self.cluster.runs()), None)
        if run is None:
            raise UsageError("no runs yet; `controller run-pipeline FOLDER --local` makes one")
        return str(run)

    def _published(self, index: str) -> str | None:
        listed = self.cluster.call("searcher", "indexes", self.settings)["indexes"]
        return next((each["run"] for each in listed if each["index"] == index), None)

    def _index_of(self, run: str) -> str:
        name = RunFolder(run).plan
        try:
            return str(json.loads(Storage(self.settings.storage.uri).get(name))["index"])
        except NotFound:
            raise UsageError(f"no run is called {run!r} here; `controller runs` lists them") from None

    def _about(self, run: RunSettings) -> Settings:
        return Settings(run=run, storage=self.settings.storage, store=self.settings.store)

    def _tell(self, result: Mapping[str, Any], settings: Settings) -> None:
        run = settings.run.id
        bad = (
            f", {result['bad']:,} could not be used (controller report {run} --bad{self._where})"
            if result["bad"]
            else ""
        )
        self.out.print(f"index {result['index']}: {plural(result['images'], 'image')} searchable{bad}", soft_wrap=True)
        self._tell_if_another_serves(result["published"], settings)

    def _tell_if_another_serves(self, serving: str | None, settings: Settings) -> None:
        """After a rollback, say, or where a later run has been published."""
        if serving not in (None, settings.run.id):
            self.out.print(f"index {settings.run.index} goes on serving run {serving}", soft_wrap=True)

    def _error(self, sentence: object) -> None:
        self.err.print(f"[red]error:[/] {escape(str(sentence))}", soft_wrap=True, highlight=False)

    def _show(self, report: Report) -> None:
        rows = Table(show_header=False, box=None, pad_edge=False, padding=(0, 3, 0, 0))
        facts: dict[str, object] = {
            "run": report.run,
            "index": report.index,
            "source": report.source,
            "model": f"{report.model} ({report.dim}-d)",
            "published": report.published,
            "searchable": plural(report.images, "image"),
            "bad": plural(report.bad, "image"),
            "embedding": f"{report.embed_seconds:,.1f} s in {plural(report.shards, 'shard')}",
            "ingest": f"{report.ingest_seconds:,.1f} s, {report.vectors_added:,} vectors added",
            "verified": ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report.verified.items()),
        }
        if report.kept or report.removed:
            facts["update"] = f"{report.kept:,} images kept, {report.removed:,} removed"
        if report.skipped:
            facts["passed over"] = ", ".join(f"{count} {what}" for what, count in report.skipped.items())
        for name, value in facts.items():
            rows.add_row(f"[dim]{name}[/]", escape(str(value)))
        for reason, count in report.bad_reasons.items():
            rows.add_row(f"[dim]bad: {count:,}[/]", escape(reason))
        self.out.print(rows)

    def _list(self, rows: list[dict[str, Any]], *, empty: str) -> int:
        if self.args.output == "json":
            print(json.dumps(rows, ensure_ascii=False))
        elif not rows:
            self.err.print(empty, soft_wrap=True)
        else:
            shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
            for heading in rows[0]:
                shown.add_column(heading, overflow="fold")
            for row in rows:
                shown.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
            self.out.print(shown)
        return ExitCode.DONE


def _report(storage: Storage, run: str) -> Report | None:
    name = RunFolder(run).report
    try:
        return Report.from_json(storage.get(name), name)
    except NotFound:
        return None


def _all_done(jobs: Mapping[Stage, JobState]) -> bool:
    return Stage.INGEST in jobs and all(job.phase is Phase.COMPLETE for job in jobs.values())


def _stage_words(jobs: Mapping[Stage, JobState]) -> str:
    last = next(reversed(list(jobs.values())), None)
    return f"{last.stage} {last.phase}" if last else "no Jobs"


def _console() -> Console:
    """stdout: as wide as the terminal, or in a pipe as wide as its lines, for other programs to read."""
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def _need(*packages: str) -> None:
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise UsageError(
            f"to work on this machine, {' and '.join(absent)} must be installed: "
            "pip install 'imgsearch[embedder,searcher]'"
        )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="controller", description="Image search on your own machines.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, about: str, *, home: bool = True, output: bool = False) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=about, description=about)
        if home:
            made.add_argument(
                "--home",
                type=Path,
                default=HOME,
                metavar="DIR",
                help=f"where runs and vectors are kept ({HOME})",
            )
        if output:
            made.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print it")
        return made

    run = verb("run-pipeline", "Index a source: plan, embed, ingest, verify, publish. Again: go on where it stopped.")
    run.add_argument("source", metavar="SOURCE", help="a folder, 'DIR/*.parquet', or hf://datasets/NAME?split=train")
    run.add_argument("--local", action="store_true", help="on this machine, as processes")
    run.add_argument("--index", default="photos", metavar="NAME", help="what it is published as (photos)")
    run.add_argument("--model", default=given.MODEL, help=f"OpenCLIP ARCH/TAG, or local-dir:PATH ({given.MODEL})")
    run.add_argument("--run", metavar="ID", help="the run's id; computed from source, model and options if not given")
    run.add_argument("--update", action="store_true", help="embed only what is new or changed since the published run")
    run.add_argument("--shard-size", type=int, default=10_000, metavar="N", help="images a shard (10000)")
    run.add_argument("--parallelism", type=int, default=1, metavar="N", help="shards at a time (1: it uses every core)")
    run.add_argument("--dry-run", action="store_true", help="print the Jobs and create none")

    status = verb("status", "Show the stages of a run.", output=True)
    status.add_argument("run", nargs="?", metavar="RUN", help="the latest if not given")
    status.add_argument("--watch", action="store_true", help="again and again until the run has ended")
    verb("runs", "List the runs.", output=True)
    verb("indexes", "List the published indexes.", output=True)
    rollback = verb("rollback", "Point an index back at the run that was published before.")
    rollback.add_argument("index", metavar="INDEX", help="its name")
    cleanup = verb("cleanup", "Remove the Jobs of ended runs; with --data a run's files and vectors too.")
    cleanup.add_argument("run", nargs="?", metavar="RUN", help="every ended one if not given")
    cleanup.add_argument("--data", action="store_true", help="its folder and collection too; refused while it serves")
    report = verb("report", "Show what became of a run's images.", output=True)
    report.add_argument("run", nargs="?", metavar="RUN", help="the latest if not given")
    report.add_argument("--bad", action="store_true", help="every image that could not be used, as CSV")
    logs = verb("logs", "Print the log of one shard.")
    logs.add_argument("run", metavar="RUN", help="its id")
    logs.add_argument("shard", metavar="SHARD", type=int, help="its number, from 0")
    logs.add_argument("--stage", choices=[*Stage], default=Stage.EMBED, help="of which stage (embed)")
    serve = verb("serve", "Serve the search page and the API.")
    serve.add_argument("--local", action="store_true", help="on this machine")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    search = verb("search", "Search by a text or an image file.", home=False, output=True)
    search.add_argument("query", metavar="TEXT|FILE", help='"a red bicycle", or ./photo.jpg')
    search.add_argument("-k", type=int, default=10, metavar="N", help="how many results (10)")
    search.add_argument("--url", default="http://127.0.0.1:8000", help="the searcher (http://127.0.0.1:8000)")
    search.add_argument("--index", metavar="NAME", help="which index, where there are several")
    return top


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs one command; returns its exit code: 0 done, 1 the pipeline failed, 2 usage, 3 temporary, 130 Ctrl-C."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    err = Console(stderr=True)
    command = Command(args, out=_console(), err=err, env=env)
    verb: Callable[[], int] = getattr(command, args.verb.replace("-", "_"))
    try:
        return verb()
    except ImgsearchError as error:
        command._error(error)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.TEMPORARY
    except OSError as error:
        command._error(f"{error.strerror}: {error.filename or args.verb}")
        return ExitCode.TEMPORARY
    except KeyboardInterrupt:
        return INTERRUPTED


def run() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:], os.environ))


if __name__ == "__main__":
    run()
