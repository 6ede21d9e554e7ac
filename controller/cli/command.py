"""The verbs of the command line: one method each. stdout has the result, stderr the progress and the errors."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from controller.backends import skypilot
from controller.backends.skypilot.pools import ensure_pool, remove_pool
from controller.backends.skypilot.prices import prices
from controller.cli import options as given
from controller.cli import plot
from controller.cli.console import Terminal
from controller.cli.metrics import RunMetrics
from controller.cli.tables import Rate, RunView, average, plural, reasons, report_table, summary, table
from controller.cli.target import Place, door, finder, place
from controller.gpus.nodes import Offer
from controller.jobs.cost import cost
from controller.jobs.manifests import CONTROLLER, job_name
from controller.jobs.results import Answer, IngestResult
from controller.jobs.state import JobState, Phase, Stage, ingested
from controller.run.loop import Pipeline
from controller.run.steps import Failed, Finished, over
from imgsearch.client import Client, KeyRefused, Options, Term
from imgsearch.errors import ExitCode, PermanentError, TemporaryError, UsageError
from imgsearch.metrics import exposed
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import EvaluateSettings, RunSettings, Settings

INTERRUPTED = 130
DOWN = (
    "This ends the Kubernetes on the machines of pool {}, with all that runs there, and removes /etc/rancher, "
    "/var/lib/rancher, /var/lib/kubelet, /etc/kubernetes and ~/.kube from them. Go on?"
)
KEY_VARIABLE = "IMGSEARCH_API_KEY"
"""Where the searcher's API key is looked for; never on the command line, which other users of the machine can read."""
WATCH_SECONDS = 2.0
LAST_READ_SECONDS = 60.0
"""A controller that has ended is scraped once more within this time: how its run ended would not be known else."""


class Command:
    """One call of the program: its arguments, where it prints, and the place it works on."""

    def __init__(self, args: argparse.Namespace, *, out: Console, err: Console, env: Mapping[str, str]) -> None:
        self.args = args
        self.terminal = Terminal(out, err)
        self.env = env

    @cached_property
    def place(self) -> Place:
        return place(self.args, self.env)

    def run_pipeline(self) -> int:
        args, place = self.args, self.place
        source, model = place.source(args.source), place.model(args.model)
        settings = given.with_run(
            given.overridden(place.settings, args.set),
            source=source,
            index=args.index,
            model=model,
            run=args.run,
            shard_images=args.shard_size,
            base=self._published(args.index) if args.update else None,
        )
        if args.detach:
            return self._detach(settings)
        cluster = place.runner(args, settings)
        view = RunView(settings.run.id, self.terminal.err, gpu_hour_price=settings.jobs.gpu_hour_price)
        capacity, placement = place.capacity(args, settings)
        metrics = RunMetrics(settings.run.id, settings.run.index)

        def show(jobs: Mapping[Stage, JobState]) -> None:
            view.show(jobs)
            metrics.show(jobs)

        pipeline = Pipeline(
            cluster,
            settings,
            release=place.release,
            capacity=capacity,
            placement=placement,
            show=show,
            events=place.events,
        )
        if args.dry_run:
            # How many shards there will be is known once the plan is made; one stands in for them here.
            self._dry_run([pipeline.manifest(stage, 1) for stage in Stage])
            return ExitCode.DONE
        place.ready()
        fresh = not _all_done(cluster.jobs(settings.run.id))
        try:
            with view, exposed(metrics.registry, given.metrics_port(self.env), last_read=LAST_READ_SECONDS):
                end, jobs = pipeline.run()
        except KeyboardInterrupt:
            self.terminal.note(place.interrupted(settings.run.id))
            return INTERRUPTED
        finally:
            cluster.close()
        return self._ended(end, jobs, settings, fresh=fresh)

    def status(self) -> int:
        cluster = self.place.cluster
        run = self.args.run or next(reversed(cluster.runs()), None)
        for trouble in cluster.troubles():
            self.terminal.warn(trouble)
        if run is None:
            raise UsageError(f"no runs yet; `controller run-pipeline SOURCE{self.place.flags}` makes one")
        window = Rate(time.monotonic)
        while True:
            jobs = cluster.jobs(run)
            if not jobs:
                raise UsageError(f"no run is called {run!r} here; `controller runs{self.place.flags}` lists them")
            rate = None
            if embed := jobs.get(Stage.EMBED):
                rate = window.update(embed.images_done) or average(embed, datetime.now(UTC))
            price = self.place.settings.jobs.gpu_hour_price
            if self.args.output == "json":
                stages = [summary(job, jobs, rate, gpu_hour_price=price) for job in jobs.values()]
                print(json.dumps({"run": run, "stages": stages}), flush=True)
            else:
                self.terminal.out.print(table(run, jobs, rate, gpu_hour_price=price))
                for reason in reasons(jobs):
                    self.terminal.out.print(reason, soft_wrap=True)
            if not self.args.watch or over(jobs):
                return ExitCode.DONE
            cluster.wait(WATCH_SECONDS)

    def runs(self) -> int:
        cluster = self.place.cluster
        told = self._ask("runs")
        done = {row["run"]: row for row in told["runs"]}
        if told["left_out"]:
            self.terminal.warn(f"{plural(told['left_out'], 'earlier run')} more than fit into one answer")
        rows = []
        for run in dict.fromkeys([*reversed(done), *cluster.runs()]):
            about = done.get(run, {})
            rows.append(
                {
                    "run": run,
                    "index": about.get("index"),
                    "state": "done" if run in done else _stage_words(cluster.jobs(run)),
                    "images": about.get("images"),
                    "bad": about.get("bad"),
                    "source": about.get("source"),
                }
            )
        return self._list(rows, empty=f"no runs yet; `controller run-pipeline SOURCE{self.place.flags}` makes one")

    def indexes(self) -> int:
        empty = f"no index yet; `controller run-pipeline SOURCE{self.place.flags}` makes one"
        return self._list(self._ask("indexes")["indexes"], empty=empty)

    def rollback(self) -> int:
        told = self._ask("rollback", RunSettings(index=self.args.index))
        self.terminal.say(f"index {told['index']} points to run {told['run']} again ({told['images']:,} images)")
        return ExitCode.DONE

    def cleanup(self) -> int:
        cluster = self.place.cluster
        known = cluster.runs()
        runs = [self.args.run] if self.args.run else known
        if self.args.data and not self.args.run:
            raise UsageError("--data removes a run for good: name the RUN")
        if self.args.run and not self.args.data and self.args.run not in known:
            raise UsageError(f"no run is called {self.args.run!r} here; `controller runs{self.place.flags}` lists them")
        for run in runs:
            jobs = cluster.jobs(run)
            active = [job.stage for job in jobs.values() if job.phase in (Phase.ACTIVE, Phase.SUSPENDED)]
            if self.args.run and active:
                raise UsageError(f"run {run} is at work ({active[0]}): stop it first")
            if not self.args.run and not over(jobs):
                continue
            if self.args.data:
                self._ask("forget", RunSettings(id=run))
            for part in (*Stage, CONTROLLER):
                cluster.delete(job_name(self.place.release, run, part))
            self.terminal.say(f"removed {'everything' if self.args.data else 'the Jobs'} of run {run}")
        return ExitCode.DONE

    def report(self) -> int:
        run = self.args.run
        if run is None:
            done = self._ask("runs")["runs"]
            if not done:
                raise UsageError(f"no run is done yet; `controller status{self.place.flags}` says how far they are")
            run = done[0]["run"]
        if self.args.bad:
            told = self._call("bad", RunSettings(id=run))
            if not told.is_complete(told.text):
                raise PermanentError(
                    f"the list has {told.result['bytes']:,} bytes, more than the log of a pod keeps: read "
                    f"{RunFolder(run).bad_list} in {self.place.settings.storage.uri}"
                )
            sys.stdout.write(told.text)
            return ExitCode.DONE
        report = {**self._ask("report", RunSettings(id=run)), "cost": self._cost(run)}
        if self.args.output == "json":
            print(json.dumps(report, ensure_ascii=False, indent=1))
        else:
            self.terminal.out.print(report_table(report))
        return ExitCode.DONE

    def evaluate(self) -> int:
        args = self.args
        if args.other == args.index:
            raise UsageError(f"name another index to compare {args.index} with")
        if args.plot:
            plot.check_plot(args.plot)
        self.place.ready()
        wanted = EvaluateSettings(args.other, args.queries, args.labels, args.captions)
        answer = self._call("evaluate", RunSettings(index=args.index), wanted)
        # A library may have printed something before.
        line = answer.text.rstrip("\n").rpartition("\n")[2]
        if not answer.is_complete(line):
            raise TemporaryError("the answer has not come whole: try again")
        told = json.loads(line)
        if args.output == "json":
            print(json.dumps(told, ensure_ascii=False, indent=1))
        else:
            for index in told["indexes"]:
                self.terminal.say(plot.about(index))
            self._list(plot.rows(told), empty="there is too little to measure")
            for index in told["indexes"]:
                if index["by_label"]:
                    self._list(plot.weakest(index), empty="")
        if args.plot:
            plot.plot(told, args.plot)
        return ExitCode.DONE

    def logs(self) -> int:
        sys.stdout.write(self.place.cluster.log(self.args.run, Stage(self.args.stage), self.args.shard))
        return ExitCode.DONE

    def pools(self) -> int:
        args = self.args
        if args.local or args.home is not None:
            raise UsageError("a pool is one of a cluster: leave out --local")
        if args.action and not args.name:
            raise UsageError(f"name the pool: controller pools {args.action} NAME")
        config = self.env.get("KUBECONFIG")
        if args.action == "up":
            if args.file is None:
                raise UsageError("name the machines: --file ssh_node_pools.yaml (sky/ssh_node_pools.example.yaml)")
            made = ensure_pool(args.name, args.file, kubeconfig=config, tell=self.terminal.note)
            self.terminal.say(f"pool {args.name} is ready: --pool {args.name}, or --context {made}")
            return ExitCode.DONE
        if args.action == "down":
            if not args.yes and not self.terminal.agreed(DOWN.format(args.name)):
                raise UsageError("nothing was changed: say --yes where nobody can be asked")
            remove_pool(args.name, kubeconfig=config, tell=self.terminal.note)
            self.terminal.say(f"pool {args.name} is gone")
            return ExitCode.DONE
        api, context = door(args, self.env)
        rows = [self._offer(offer) for offer in finder(api, context, None).offers()]
        if not skypilot.installed():
            self.terminal.warn(f"no prices: {skypilot.INSTALL}")
        return self._list(rows, empty="no node has a GPU")

    def serve(self) -> int:
        return self.place.serve(self.args)

    def search(self) -> int:
        args = self.args
        key = self.env.get(KEY_VARIABLE)
        options: Options = {
            "k": args.k,
            "filter": None if args.filter is None else _filter(args.filter),
            "min_score": args.min_score,
            "index": args.index,
            "parts": [_term(told) for told in args.query],
        }
        with Client(args.url, key) as client:
            try:
                found = client.search(**options)
            except KeyRefused as error:
                raise UsageError(
                    f"{args.url} does not know the API key in {KEY_VARIABLE}: ask whoever runs it for the right one"
                    if key
                    else f"{args.url} wants its API key: set {KEY_VARIABLE} to it"
                ) from error
        if args.output == "json":
            print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
            return ExitCode.DONE
        rows = [{"score": f"{each.score:.3f}", "image": each.uri} for each in found]
        return self._list(rows, empty="no image found")

    def _cost(self, run: str) -> dict[str, Any] | None:
        """What the run has cost, as long as its Jobs are there."""
        embed = self.place.cluster.jobs(run).get(Stage.EMBED)
        if embed is None:
            return None
        named = {gpu.accelerator for gpu in embed.usage.by_gpu if gpu.accelerator} if skypilot.installed() else set()
        asked = {accelerator: prices(accelerator) for accelerator in named}
        return cost(embed, hour_price=self.place.settings.jobs.gpu_hour_price, prices=asked)

    def _offer(self, offer: Offer) -> dict[str, Any]:
        """A row of `pools`. Prices are the cheapest cloud's: what the cluster's own nodes cost, its owner knows."""
        row = {
            "accelerator": offer.accelerator,
            "nodes": offer.nodes,
            "gpus": offer.total,
            "free": offer.free,
            "on spot nodes": offer.spot,
        }
        if not skypilot.installed():
            return row
        asked = prices(offer.accelerator)
        spot = [price.spot_hour for price in asked if price.spot_hour is not None]
        return row | {
            "USD an hour": round(asked[0].hour, 4) if asked else None,
            "on spot": round(min(spot), 4) if spot else None,
            "cheapest at": asked[0].cloud if asked else None,
        }

    def _detach(self, settings: Settings) -> int:
        if self.args.dry_run:
            self._dry_run([self.place.controller_job(self.args, settings)])
            return ExitCode.DONE
        self.place.detach(self.args, settings)
        self.terminal.say(
            f"run {settings.run.id} goes on in the cluster: "
            f"controller status {settings.run.id} --watch{self.place.flags}"
        )
        return ExitCode.DONE

    def _dry_run(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        print(yaml.safe_dump_all(jobs, sort_keys=False), end="")
        for job in jobs:
            self.place.check(job)

    def _ended(
        self,
        end: Finished | Failed,
        jobs: Mapping[Stage, JobState],
        settings: Settings,
        *,
        fresh: bool,
    ) -> int:
        run, flags = settings.run.id, self.place.flags
        if isinstance(end, Failed):
            shard = "SHARD" if end.stage is Stage.EMBED else f"0 --stage {end.stage}"
            self.terminal.error(f"{end.stage}: {end.reason}")
            self.terminal.note(
                f"the same command tries again what is missing; controller status {run}{flags} and "
                f"controller logs {run} {shard}{flags} say more"
            )
            return ExitCode.FAILED
        if not end.changed:
            about = settings.run
            self.terminal.say(f"nothing has changed since run {about.base}: index {about.index} stays as it is")
        elif fresh:
            # Where its pod went before anyone had read what it said, its report says the same.
            self._tell(ingested(jobs) or self._reported(settings), settings)
        else:
            self.terminal.say(
                f"run {run} is done already, nothing was changed; "
                "--update indexes what is new or changed in the source since"
            )
            self._tell_if_another_serves(self._published(settings.run.index), settings)
        return ExitCode.DONE

    def _call(self, verb: str, run: RunSettings, wanted: EvaluateSettings | None = None) -> Answer:
        known = self.place.settings
        evaluate = wanted or EvaluateSettings()
        settings = Settings(run=run, storage=known.storage, store=known.store, evaluate=evaluate)
        return self.place.cluster.call("searcher", verb, settings)

    def _ask(self, verb: str, run: RunSettings | None = None) -> Mapping[str, Any]:
        return self._call(verb, run or RunSettings()).result

    def _published(self, index: str) -> str | None:
        return next((each["run"] for each in self._ask("indexes")["indexes"] if each["index"] == index), None)

    def _reported(self, settings: Settings) -> IngestResult:
        serving = self._published(settings.run.index)
        return IngestResult.from_json({**self._ask("report", RunSettings(id=settings.run.id)), "published": serving})

    def _tell(self, result: IngestResult, settings: Settings) -> None:
        run = settings.run.id
        bad = (
            f", {result.bad:,} could not be used (controller report {run} --bad{self.place.flags})"
            if result.bad
            else ""
        )
        self.terminal.say(f"index {result.index}: {plural(result.images, 'image')} searchable{bad}")
        self._tell_if_another_serves(result.published, settings)

    def _tell_if_another_serves(self, serving: str | None, settings: Settings) -> None:
        """After a rollback, say, or where a later run has been published."""
        if serving not in (None, settings.run.id):
            self.terminal.say(f"index {settings.run.index} goes on serving run {serving}")

    def _list(self, rows: list[dict[str, Any]], *, empty: str) -> int:
        self.terminal.rows(rows, output=self.args.output, empty=empty)
        return ExitCode.DONE


def _all_done(jobs: Mapping[Stage, JobState]) -> bool:
    return Stage.INGEST in jobs and all(job.phase is Phase.COMPLETE for job in jobs.values())


def _term(told: str) -> Term:
    """An image file that `told` names, or else a text. Raises UsageError for a path at which there is none."""
    file = Path(told).expanduser()
    if file.is_file():
        return {"image": file}
    if re.match(r"~|\.{0,2}/", told):
        raise UsageError(f"there is no file {told}")
    return {"text": told}


def _filter(told: str) -> dict[str, Any]:
    try:
        value = json.loads(told)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"--filter {told} is no JSON object: write it as '{{\"year\": 2020}}'")
    return value


def _stage_words(jobs: Mapping[Stage, JobState]) -> str:
    last = next(reversed(list(jobs.values())), None)
    return f"{last.stage} {last.phase}" if last else "no Jobs"
