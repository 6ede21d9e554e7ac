"""The cluster that the options of a command select: its API and its GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from controller.backends.kubernetes.gpus import NodeGpuFinder
from controller.backends.skypilot import installed
from controller.backends.skypilot.gpus import SkyGpuFinder
from controller.backends.skypilot.pools import ensure_pool
from controller.cli.options import TargetOptions
from controller.gpus.nodes import GpuFinder

if TYPE_CHECKING:
    from controller.backends.kubernetes.api import Api


def open_cluster(options: TargetOptions, env: Mapping[str, str]) -> tuple[Api, str | None]:
    """The Kubernetes API that the options select, and its context. Raises UsageError where there is none."""
    from controller.backends.kubernetes.connection import connect  # takes half a second; local work does not need it

    kubeconfig = env.get("KUBECONFIG")
    context = ensure_pool(options.pool, kubeconfig=kubeconfig) if options.pool else options.context
    return connect(kubeconfig=kubeconfig, context=context, namespace=options.namespace), context


def gpu_finder(api: Api, context: str | None, autoscaler: str | None) -> GpuFinder:
    """Finds the GPUs of a cluster: with SkyPilot where it is installed."""
    if installed():
        return SkyGpuFinder(context, autoscaler=autoscaler)
    return NodeGpuFinder(api, autoscaler=autoscaler)
