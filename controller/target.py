"""Where a command works: on this machine, or on a release of the chart in a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from controller import settings as given
from controller import skypilot
from controller.local import RELEASE, LocalCluster
from controller.pipeline import Cluster
from imgsearch.errors import UsageError
from imgsearch.settings import Settings

if TYPE_CHECKING:
    from controller.clouds import SkyCluster
    from controller.cluster import Api
    from controller.placement import Finder
    from controller.remote import RemoteCluster

HOME = Path("~/.imgsearch")
RELEASE_NAME = "imgsearch"
BACKENDS = ("kubernetes", "sky")


@dataclass(frozen=True)
class Target:
    """A place that runs Jobs, what it says of storage and store, and how to name it again."""

    cluster: Cluster
    settings: Settings
    release: str
    flags: str
    """What a person adds to the next command to mean the same place; begins with a space, or is empty."""
    local: LocalCluster | None = None
    """The cluster, where it is this machine."""
    remote: RemoteCluster | None = None
    """The cluster, where it is a Kubernetes."""
    sky: SkyCluster | None = None
    """The cluster, where it is machines that SkyPilot rents."""
    finder: Callable[[str | None], Finder] | None = None
    """What finds its GPUs, and those that the named autoscaler can add."""


def target(args: argparse.Namespace, env: Mapping[str, str]) -> Target:
    """What the flags of a verb choose; raises UsageError where there is no such cluster or release."""
    if args.backend == "sky":
        return _rented(args, env)
    if args.local or args.home is not None:
        here = LocalCluster((args.home or HOME).expanduser(), env=env)
        flags = f" --home {args.home}" if args.home else " --local"
        return Target(here, given.local_settings(args.home or HOME), RELEASE, flags, local=here)
    from controller.pools import finder
    from controller.remote import RemoteCluster

    api, context = door(args, env)
    there = RemoteCluster(api, args.release)
    settings = there.settings()
    release = None if args.release == RELEASE_NAME else args.release
    told = {"release": release, "namespace": args.namespace, "context": args.context, "pool": args.pool}
    flags = "".join(f" --{flag} {value}" for flag, value in told.items() if value)
    gpus = partial(finder, api, context)
    return Target(there, settings, args.release, flags, remote=there, finder=gpus)


def _rented(args: argparse.Namespace, env: Mapping[str, str]) -> Target:
    from controller import clouds
    from controller.skyjobs import SkyTasks

    if args.local or args.context or args.pool or args.namespace:
        raise UsageError("--backend sky has no cluster and is not this machine: leave out the other flags of the place")
    home = args.home or HOME
    there = clouds.SkyCluster(home.expanduser(), SkyTasks(), env=env, files=args.sky_tasks or clouds.TASKS)
    told = {"home": args.home, "sky-tasks": args.sky_tasks}
    flags = " --backend sky" + "".join(f" --{flag} {value}" for flag, value in told.items() if value)
    return Target(there, there.settings(env), clouds.RELEASE, flags, sky=there)


def door(args: argparse.Namespace, env: Mapping[str, str]) -> tuple[Api, str | None]:
    """The API that the flags choose, and its context; raises UsageError where there is none."""
    from controller.cluster import connect  # half a second, which work on this machine does not pay

    config = env.get("KUBECONFIG")
    context = skypilot.ensure_pool(args.pool, kubeconfig=config) if args.pool else args.context
    return connect(kubeconfig=config, context=context, namespace=args.namespace), context
