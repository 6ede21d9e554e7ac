"""A release of the chart in a cluster as the target of commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.backends import JobBackend, overflow
from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.kubernetes.events import Events
from controller.backends.skypilot.placement import MachinePlacement
from controller.cli.options import RunOptions, ServeOptions, TargetOptions, to_arguments
from controller.cli.targets.base import Target, fixed_capacity
from controller.cli.targets.cluster import gpu_finder, open_cluster
from controller.cli.targets.sky import rented_machines
from controller.gpus.affinity import NodePlacement
from controller.gpus.nodes import find, free_pods
from controller.jobs.manifests import Placement
from controller.run.capacity import Capacity
from imgsearch.errors import UsageError
from imgsearch.settings import Settings


class ReleaseTarget(Target):
    """A release of the chart in a cluster."""

    def __init__(self, options: TargetOptions, env: Mapping[str, str]) -> None:
        """Raises UsageError where the options select no cluster, or one without such a release."""
        self._api, self._context = open_cluster(options, env)
        self._kubernetes = KubernetesBackend(self._api, options.release)
        self.scaler = self._kubernetes
        self.events = Events(self._api)
        self._options = options
        self._env = env
        settings = self._kubernetes.settings()
        same = replace(options, sky_tasks=None)
        super().__init__(self._kubernetes, settings, release=options.release, options=same)

    def resources(self, options: RunOptions, settings: Settings) -> tuple[Capacity, Placement | None]:
        jobs, limit = settings.jobs, options.max_parallelism
        if not (options.accelerators or options.spot or limit):
            return fixed_capacity(options, settings, self._kubernetes), None
        if limit and not options.accelerators:
            raise UsageError("--max-parallelism needs --accelerator: it counts the free GPUs of that kind")
        if limit and jobs.queue:
            raise UsageError(
                f"--max-parallelism cannot be used with the queue {jobs.queue}: Kueue stops all pods of a Job whose "
                "number of pods changes. Use --parallelism, and the quota of the queue limits the pods"
            )
        nodes = gpu_finder(self._api, self._context, jobs.autoscaler)
        matches = find(nodes, options.accelerators) if options.accelerators else []
        parallelism = options.parallelism or (None if limit else jobs.parallelism)
        if parallelism is None and limit and jobs.autoscaler:
            parallelism = limit  # an autoscaler adds nodes for pods that wait
        if parallelism is None:
            parallelism = free_pods(matches) if matches else self._kubernetes.parallelism()
        capacity = Capacity(
            max(1, min(parallelism, limit or parallelism)),
            most=limit,
            free_pods=lambda: free_pods(find(nodes, options.accelerators)),
            wait_seconds=jobs.capacity_seconds,
        )
        return capacity, NodePlacement(tuple(matches), options.spot, tuple(options.accelerators))

    def check(self, job: Mapping[str, Any]) -> None:
        self._kubernetes.check(job)

    def run_backend(self, options: RunOptions, settings: Settings) -> JobBackend:
        if not options.overflow:
            return self._kubernetes
        overflow.check(settings)
        wait_seconds = settings.jobs.capacity_seconds
        if wait_seconds is not None and wait_seconds <= options.overflow_after:
            raise UsageError(
                f"invalid --overflow-after {options.overflow_after:g} s: use less than jobs.capacity_seconds "
                f"({wait_seconds} s) of the release, or increase that setting"
            )
        return overflow.OverflowBackend(
            self._kubernetes,
            rented_machines(self._options, self._env),
            settings,
            after=options.overflow_after,
            placement=MachinePlacement(options.accelerators, options.spot),
        )

    def controller_job(self, options: RunOptions, settings: Settings) -> Mapping[str, Any]:
        if options.overflow:
            raise UsageError("--overflow needs SkyPilot on this machine: remove --detach")
        run = settings.run
        capacity, _ = self.resources(options, settings)  # the pod may not be allowed to list nodes
        pod_options = replace(
            options,
            source=run.source,
            model=run.model,
            run=run.id,
            shard_size=run.shard_images,
            parallelism=None if options.max_parallelism else capacity.parallelism,
            detach=False,
            dry_run=False,
        )
        arguments = ["run-pipeline", *to_arguments(pod_options), *to_arguments(TargetOptions(release=self.release))]
        return self._kubernetes.controller_job(arguments, settings)

    def start_controller(self, job: Mapping[str, Any]) -> None:
        self._kubernetes.start_controller(job)

    def serve(self, options: ServeOptions) -> int:
        raise UsageError(
            "`controller serve` serves on this machine: add --local. In a cluster, the chart's searcher serves"
        )

    def interrupted(self, run: str) -> str:
        return (
            "The Jobs of the run continue in the cluster, but the next stage needs a controller. The same command "
            "resumes the run (with --detach: in the cluster). "
            f"`controller status {run} --watch{self.flags}` shows the progress"
        )
