"""`controller pools`: lists the GPUs of a cluster, and creates and deletes clusters of SSH machines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.backends import skypilot
from controller.backends.skypilot.pools import ensure_pool, remove_pool
from controller.backends.skypilot.prices import prices
from controller.cli.console import Terminal, add_output
from controller.cli.options import add_target, read_target
from controller.cli.targets.cluster import gpu_finder, open_cluster
from controller.gpus.nodes import Offer
from imgsearch.errors import ExitCode, UsageError

HELP = "List the GPUs of a cluster. `up` creates a cluster from machines, `down` deletes it."
DOWN = (
    "This deletes the Kubernetes on the machines of pool {} with everything that runs in it, and removes /etc/rancher, "
    "/var/lib/rancher, /var/lib/kubelet, /etc/kubernetes and ~/.kube from them. Continue?"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("up", "down"), help="Create or delete the pool NAME")
    parser.add_argument("name", nargs="?", metavar="NAME", help="Name of the pool in the file of machines")
    parser.add_argument("--file", type=Path, metavar="YAML", help="File of machines, for `up`")
    parser.add_argument("--yes", action="store_true", help="Do not ask before `down`")
    add_output(parser)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    options = read_target(args)
    if options.local or options.home is not None:
        raise UsageError("a pool belongs to a cluster: remove --local and --home")
    if args.action and not args.name:
        raise UsageError(f"the name of the pool is missing: `controller pools {args.action} NAME`")
    kubeconfig = env.get("KUBECONFIG")
    match args.action:
        case "up":
            return _create(args.name, args.file, kubeconfig, terminal)
        case "down":
            return _delete(args.name, kubeconfig, terminal, confirmed=args.yes)
    api, context = open_cluster(options, env)
    rows = [_row(offer) for offer in gpu_finder(api, context, None).offers()]
    if not skypilot.installed():
        terminal.warn(f"no prices: {skypilot.INSTALL}")
    terminal.rows(rows, output=args.output, empty="No node has a GPU")
    return ExitCode.DONE


def _create(name: str, file: Path | None, kubeconfig: str | None, terminal: Terminal) -> int:
    if file is None:
        raise UsageError(
            "the file of machines is missing: --file ssh_node_pools.yaml (example: sky/ssh_node_pools.example.yaml)"
        )
    context = ensure_pool(name, file, kubeconfig=kubeconfig, report=terminal.note)
    terminal.say(f"pool {name} is ready: --pool {name}, or --context {context}")
    return ExitCode.DONE


def _delete(name: str, kubeconfig: str | None, terminal: Terminal, *, confirmed: bool) -> int:
    if not confirmed and not terminal.confirmed(DOWN.format(name)):
        raise UsageError("not confirmed, so nothing is changed. To run without a terminal, add --yes")
    remove_pool(name, kubeconfig=kubeconfig, report=terminal.note)
    terminal.say(f"deleted pool {name}")
    return ExitCode.DONE


def _row(offer: Offer) -> dict[str, Any]:
    """The prices are those of the cheapest cloud, for comparison with the cluster's own nodes."""
    row = {
        "accelerator": offer.accelerator,
        "nodes": offer.nodes,
        "gpus": offer.total,
        "free": offer.free,
        "on spot nodes": offer.spot,
    }
    if not skypilot.installed():
        return row
    market = prices(offer.accelerator)
    spot = [price.spot_hour for price in market if price.spot_hour is not None]
    return row | {
        "USD an hour": round(market[0].hour, 4) if market else None,
        "on spot": round(min(spot), 4) if spot else None,
        "cheapest at": market[0].cloud if market else None,
    }
