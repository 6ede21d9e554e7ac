"""Where a command works: on this machine, on a release of the chart in a cluster, or on machines that are rented."""

from __future__ import annotations

import argparse
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.backends.kubernetes.gpus import NodeLook
from controller.backends.local import RELEASE, LocalCluster
from controller.backends.skypilot import INSTALL, installed
from controller.backends.skypilot.gpus import SkyFinder
from controller.backends.skypilot.pools import ensure_pool
from controller.cli import options as given
from controller.gpus.accelerators import kinds
from controller.gpus.affinity import noted, placed
from controller.gpus.nodes import Finder, find, room
from controller.run.capacity import Capacity
from controller.run.loop import Cluster
from imgsearch import distribution
from imgsearch.errors import UsageError
from imgsearch.settings import Settings

if TYPE_CHECKING:
    from controller.backends.kubernetes.api import Api
    from controller.backends.skypilot.backend import SkyCluster

HOME = Path("~/.imgsearch")
RELEASE_NAME = "imgsearch"
BACKENDS = ("kubernetes", "sky")


class Place(ABC):
    """What runs Jobs, what it says of storage and store, and how to name it again."""

    def __init__(self, cluster: Cluster, settings: Settings, *, release: str, flags: str) -> None:
        """`flags` are what a person adds to the next command to mean the same place: they begin with a space, or are
        empty."""
        self.cluster = cluster
        self.settings = settings
        self.release = release
        self.flags = flags

    def source(self, told: str) -> str:
        """A source as the programs find it that run here. Raises UsageError for one that they can't."""
        return given.source_there(told)

    def model(self, told: str | None) -> str | None:
        """A model as the programs find it that run here. Raises UsageError for one that they can't."""
        return given.model_there(told)

    def ready(self) -> None:  # noqa: B027 -- only this machine runs what may be missing
        """Raises UsageError where a run needs something that is not installed."""

    @abstractmethod
    def capacity(self, args: argparse.Namespace, settings: Settings) -> Capacity:
        """As many shards at a time as were asked for, or as the release says, or as there is room for. Where the flags
        choose GPUs or machines, the next embed Jobs get these.

        Raises UsageError for flags that mean nothing here."""

    def runner(self, args: argparse.Namespace, settings: Settings) -> Cluster:
        """What runs the Jobs of this run."""
        if args.overflow:
            raise UsageError(f"--overflow adds rented machines to those of a cluster: leave out{self.flags}")
        return self.cluster

    def controller_job(self, args: argparse.Namespace, settings: Settings) -> Mapping[str, Any]:
        """This command as a Job that runs the controller. Raises UsageError where no cluster can."""
        raise self._no_controller()

    def detach(self, args: argparse.Namespace, settings: Settings) -> None:
        """Leaves the run to such a Job."""
        raise self._no_controller()

    @abstractmethod
    def serve(self, args: argparse.Namespace) -> int:
        """Serves until it is stopped; returns its exit code. Raises UsageError with what serves here instead."""

    @abstractmethod
    def interrupted(self, run: str) -> str:
        """What becomes of a run whose controller was stopped."""

    def _no_controller(self) -> UsageError:
        return UsageError(f"--detach runs the controller in a cluster: leave out{self.flags}")


class Here(Place):
    """This machine: Jobs are processes."""

    def __init__(self, home: Path | None, env: Mapping[str, str]) -> None:
        self._local = LocalCluster((home or HOME).expanduser(), env=env)
        flags = f" --home {home}" if home else " --local"
        super().__init__(self._local, given.local_settings(home or HOME), release=RELEASE, flags=flags)

    def source(self, told: str) -> str:
        given.check_source(told)
        return given.source_here(told)

    def model(self, told: str | None) -> str | None:
        given.check_model(told)
        return told

    def ready(self) -> None:
        absent = [package for package in ("torch", "chromadb") if importlib.util.find_spec(package) is None]
        if absent:
            raise UsageError(
                f"to work on this machine, {' and '.join(absent)} must be installed: {distribution.install('all')}"
            )

    def capacity(self, args: argparse.Namespace, settings: Settings) -> Capacity:
        if args.accelerator or args.spot or args.max_parallelism:
            raise UsageError("--accelerator, --spot and --max-parallelism choose nodes of a cluster: leave out --local")
        return _asked(args, settings, self.cluster)

    def serve(self, args: argparse.Namespace) -> int:
        self.ready()
        return self._local.program("searcher", "serve", given.serving(self.settings, host=args.host, port=args.port))

    def interrupted(self, run: str) -> str:
        return "stopping: the parts in hand are being written; the same command goes on from here"


class Release(Place):
    """A release of the chart in a cluster."""

    def __init__(self, args: argparse.Namespace, env: Mapping[str, str]) -> None:
        """Raises UsageError where the flags choose no cluster, or none that has such a release."""
        from controller.backends.kubernetes.backend import RemoteCluster

        self._api, self._context = door(args, env)
        self._remote = RemoteCluster(self._api, args.release)
        self._env = env
        release = None if args.release == RELEASE_NAME else args.release
        told = {"release": release, "namespace": args.namespace, "context": args.context, "pool": args.pool}
        super().__init__(self._remote, self._remote.settings(), release=args.release, flags=_flags(told))

    def capacity(self, args: argparse.Namespace, settings: Settings) -> Capacity:
        jobs, most, remote = settings.jobs, args.max_parallelism, self._remote
        if not (args.accelerator or args.spot or most):
            return _asked(args, settings, remote)
        if most and not args.accelerator:
            raise UsageError("--max-parallelism counts free GPUs: say which with --accelerator")
        where = finder(self._api, self._context, jobs.autoscaler)
        wanted = kinds(args.accelerator) if args.accelerator else ()
        placements = find(where, wanted) if wanted else []
        remote.place(lambda template: noted(placed(template, placements, spot=args.spot), placements, spot=args.spot))
        asked = args.parallelism or (None if most else jobs.parallelism)
        if asked is None and most and jobs.autoscaler:
            asked = most  # pods that wait are what an autoscaler goes by
        if asked is None:
            asked = room(placements) if wanted else remote.parallelism()
        start = max(1, min(asked, most or asked))
        return Capacity(start, most=most, room=lambda: room(find(where, wanted)), patience=jobs.capacity_seconds)

    def runner(self, args: argparse.Namespace, settings: Settings) -> Cluster:
        if not args.overflow:
            return self._remote
        from controller.backends import overflow

        overflow.check(settings)
        patience = settings.jobs.capacity_seconds
        if patience is not None and patience <= args.overflow_after:
            raise UsageError(
                f"the release gives up after {patience} s without a node, so nothing would overflow after "
                f"{args.overflow_after:g} s: make that shorter, or jobs.capacity_seconds longer"
            )
        sky = rented(args, self._env)
        sky.choose(kinds(args.accelerator) if args.accelerator else (), args.spot)
        return overflow.OverflowCluster(self._remote, sky, settings, after=args.overflow_after)

    def controller_job(self, args: argparse.Namespace, settings: Settings) -> Mapping[str, Any]:
        if args.overflow:
            raise UsageError("--overflow rents machines with this machine's SkyPilot: leave out --detach")
        return self._remote.controller_job(self._arguments(args, settings), settings)

    def detach(self, args: argparse.Namespace, settings: Settings) -> None:
        self._remote.start_controller(self.controller_job(args, settings))

    def serve(self, args: argparse.Namespace) -> int:
        raise UsageError("say --local: in a cluster the chart serves")

    def interrupted(self, run: str) -> str:
        return (
            "its Jobs go on in the cluster, but the next stage begins only with a controller: the same command goes on "
            f"from here (--detach: in the cluster); controller status {run} --watch{self.flags} looks on"
        )

    def _arguments(self, args: argparse.Namespace, settings: Settings) -> list[str]:
        """This command for a controller in a pod: with what only this machine can see, such as the nodes."""
        run = settings.run
        told: dict[str, str | None] = {
            "--release": self.release,
            "--index": run.index,
            "--model": run.model,
            "--run": run.id,
            "--shard-size": str(run.shard_images),
            "--accelerator": args.accelerator,
            "--spot": args.spot,
        }
        at_a_time = self.capacity(args, settings).parallelism
        if args.max_parallelism:
            told["--max-parallelism"] = str(args.max_parallelism)
        else:
            told["--parallelism"] = str(at_a_time)
        flags = [word for flag, value in told.items() if value for word in (flag, value)]
        overrides = [word for each in args.set for word in ("--set", each)]
        return ["run-pipeline", run.source, *flags, *overrides, *(["--update"] if args.update else [])]


class Rented(Place):
    """Machines that SkyPilot rents, without a Kubernetes."""

    def __init__(self, args: argparse.Namespace, env: Mapping[str, str]) -> None:
        """Raises UsageError where SkyPilot is not installed, or its tasks say no storage."""
        from controller.backends.skypilot import backend

        if args.local or args.context or args.pool or args.namespace:
            raise UsageError(
                "--backend sky has no cluster and is not this machine: leave out the other flags of the place"
            )
        if not installed():
            raise UsageError(INSTALL)
        settings = backend.settings(args.sky_tasks or backend.TASKS, env)  # before a server is started
        self._sky = rented(args, env)
        flags = " --backend sky" + _flags({"home": args.home, "sky-tasks": args.sky_tasks})
        super().__init__(self._sky, settings, release=backend.RELEASE, flags=flags)

    def capacity(self, args: argparse.Namespace, settings: Settings) -> Capacity:
        if args.max_parallelism:
            raise UsageError("--max-parallelism counts the GPUs of a cluster: with --backend sky, say --parallelism")
        self._sky.choose(kinds(args.accelerator) if args.accelerator else (), args.spot)
        return _asked(args, settings, self._sky)

    def serve(self, args: argparse.Namespace) -> int:
        raise UsageError("with SkyPilot, `sky serve up sky/serve.yaml` serves (sky/README.md)")

    def interrupted(self, run: str) -> str:
        return "its machines go on and end by themselves; the same command goes on from here"


def place(args: argparse.Namespace, env: Mapping[str, str]) -> Place:
    """What the flags of a verb choose; raises UsageError where there is no such cluster or release."""
    if args.backend == "sky":
        return Rented(args, env)
    if args.local or args.home is not None:
        return Here(args.home, env)
    return Release(args, env)


def door(args: argparse.Namespace, env: Mapping[str, str]) -> tuple[Api, str | None]:
    """The API that the flags choose, and its context; raises UsageError where there is none."""
    from controller.backends.kubernetes.api import connect  # half a second, which work on this machine does not pay

    config = env.get("KUBECONFIG")
    context = ensure_pool(args.pool, kubeconfig=config) if args.pool else args.context
    return connect(kubeconfig=config, context=context, namespace=args.namespace), context


def finder(api: Api, context: str | None, autoscaler: str | None) -> Finder:
    """SkyPilot's, where it is installed."""
    if installed():
        return SkyFinder(context, autoscaler=autoscaler)
    return NodeLook(api, autoscaler=autoscaler)


def rented(args: argparse.Namespace, env: Mapping[str, str]) -> SkyCluster:
    """The machines that SkyPilot rents; raises UsageError where it is not installed."""
    from controller.backends.skypilot import backend
    from controller.backends.skypilot.tasks import SkyTasks

    home = (args.home or HOME).expanduser()
    return backend.SkyCluster(home, SkyTasks(), env=env, files=args.sky_tasks or backend.TASKS)


def _asked(args: argparse.Namespace, settings: Settings, cluster: Cluster) -> Capacity:
    jobs = settings.jobs
    return Capacity(args.parallelism or jobs.parallelism or cluster.parallelism(), patience=jobs.capacity_seconds)


def _flags(told: Mapping[str, object]) -> str:
    return "".join(f" --{flag} {value}" for flag, value in told.items() if value)
