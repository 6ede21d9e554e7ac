"""The command `controller`: its arguments and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # `python controller/main.py`: what is first on the path is this folder, not the project
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from controller.cli import options as given
from controller.cli.command import INTERRUPTED, Command
from controller.cli.target import BACKENDS, HOME, RELEASE_NAME
from controller.gpus.nodes import Spot
from controller.jobs.state import Stage
from imgsearch import distribution
from imgsearch.client import URL
from imgsearch.errors import ExitCode, ImgsearchError, UsageError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="controller", description="Image search on your own machines.")
    top.add_argument(
        "--version", action="version", help="show the version and exit", version=f"%(prog)s {distribution.version()}"
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, about: str, *, place: bool = True, output: bool = False) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=about, description=about)
        if place:
            where = made.add_argument_group("where (a release in the kubeconfig's cluster, or this machine)")
            where.add_argument(
                "--release", default=RELEASE_NAME, metavar="R", help=f"the chart's release ({RELEASE_NAME})"
            )
            where.add_argument("-n", "--namespace", metavar="N", help="its namespace; the context's own if not given")
            chosen = where.add_mutually_exclusive_group()
            chosen.add_argument("--context", metavar="C", help="of the kubeconfig; the current one if not given")
            chosen.add_argument("--pool", metavar="NAME", help="the pool of machines that `pools up` has made")
            where.add_argument("--local", action="store_true", help="this machine: Jobs are processes")
            where.add_argument(
                "--backend",
                choices=BACKENDS,
                default=BACKENDS[0],
                help="sky: machines that SkyPilot rents, without a Kubernetes (sky/README.md)",
            )
            where.add_argument(
                "--sky-tasks", type=Path, metavar="DIR", help="what those machines are (sky/ of the repository)"
            )
            where.add_argument(
                "--home",
                type=Path,
                metavar="DIR",
                help=f"this machine, with runs and vectors in DIR ({HOME}); of --backend sky, its state",
            )
        if output:
            made.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print it")
        return made

    run = verb("run-pipeline", "Index a source: plan, embed, ingest, verify, publish. Again: go on where it stopped.")
    run.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder or s3://BUCKET/PREFIX (gs://, az://), 'DIR/*.parquet' there or here, or hf://datasets/NAME?split=train",
    )
    run.add_argument("--index", default="photos", metavar="NAME", help="what it is published as (photos)")
    run.add_argument("--model", help=f"OpenCLIP ARCH/TAG, or local-dir:PATH (the release's, or {given.MODEL})")
    run.add_argument("--run", metavar="ID", help="the run's id; computed from source, model and options if not given")
    run.add_argument("--update", action="store_true", help="embed only what is new or changed since the published run")
    run.add_argument("--shard-size", type=int, metavar="N", help="images a shard (the release's, or 10000)")
    run.add_argument("--accelerator", metavar="L4:1,…", help="GPUs of a pod, any of these (the release's)")
    run.add_argument(
        "--overflow", choices=("sky",), help="where shards go that wait too long: machines that SkyPilot rents"
    )
    run.add_argument(
        "--overflow-after", type=float, default=600, metavar="SECONDS", help="how long they wait before that (600)"
    )
    run.add_argument("--spot", type=Spot, choices=[*Spot], help="spot nodes first, only, or not at all")
    at_a_time = run.add_mutually_exclusive_group()
    at_a_time.add_argument(
        "--parallelism",
        type=int,
        metavar="N",
        help="shards at a time (as many as the cluster has GPUs for; 1 on this machine: it uses every core)",
    )
    at_a_time.add_argument(
        "--max-parallelism",
        type=int,
        metavar="N",
        help="with --accelerator: as many as there are free GPUs for, up to N",
    )
    run.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="a setting, as embed.batch_images=64"
    )
    run.add_argument("--detach", action="store_true", help="leave the controller to the cluster, as a Job")
    run.add_argument("--dry-run", action="store_true", help="print the Jobs, have the cluster check them, create none")

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
    evaluate = verb("evaluate", "Measure how much an index finds, alone or beside another.", output=True)
    evaluate.add_argument("index", metavar="INDEX", help="its name")
    evaluate.add_argument("other", nargs="?", metavar="OTHER", help="one to compare it with: of another model, say")
    evaluate.add_argument(
        "--queries", type=_positive, default=500, metavar="N", help="images, captions and labels to search with (500)"
    )
    evaluate.add_argument("--labels", metavar="FIELD", help="of the metadata; one called label, say, if not given")
    evaluate.add_argument("--captions", metavar="FIELD", help="likewise; one called caption, say, if not given")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="draw it as well, as .svg or .png")
    logs = verb("logs", "Print the log of one shard.")
    logs.add_argument("run", metavar="RUN", help="its id")
    logs.add_argument("shard", metavar="SHARD", type=int, help="its number, from 0")
    logs.add_argument("--stage", choices=[*Stage], default=Stage.EMBED, help="of which stage (embed)")
    pools = verb("pools", "Show the GPUs of a cluster; `up` makes one out of machines, `down` ends it.", output=True)
    pools.add_argument("action", nargs="?", choices=("up", "down"), help="with a NAME")
    pools.add_argument("name", nargs="?", metavar="NAME", help="of the pool, as its file has it")
    pools.add_argument("--file", type=Path, metavar="YAML", help="the machines, for `up`")
    pools.add_argument("--yes", action="store_true", help="do not ask before `down`")
    serve = verb("serve", "Serve the search page and the API.")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    search = verb("search", "Search by a text, an image file, or both.", place=False, output=True)
    search.add_argument(
        "query", nargs="+", metavar="TEXT|FILE", help='"a red bicycle", or ./photo.jpg; of several, what is like all'
    )
    search.add_argument("-k", type=int, default=10, metavar="N", help="how many results (10)")
    search.add_argument("--filter", metavar="JSON", help="""of the metadata, as '{"year": {"$gte": 2020}}'""")
    search.add_argument("--min-score", type=float, metavar="S", help="leave out what is less similar, from -1 to 1")
    search.add_argument("--url", default=URL, help=f"the searcher ({URL})")
    search.add_argument("--index", metavar="NAME", help="which index, where there are several")
    return top


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _console() -> Console:
    """stdout: as wide as the terminal, or in a pipe as wide as its lines, for other programs to read."""
    return Console() if sys.stdout.isatty() else Console(width=10_000)


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
        command.terminal.error(error)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.TEMPORARY
    except OSError as error:
        command.terminal.error(f"{error.strerror}: {error.filename or args.verb}")
        return ExitCode.TEMPORARY
    except KeyboardInterrupt:
        return INTERRUPTED


def run() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:], os.environ))


if __name__ == "__main__":
    run()
