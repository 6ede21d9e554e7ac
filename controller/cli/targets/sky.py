"""Machines that SkyPilot rents as the target of commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.backends.skypilot import INSTALL, installed, taskfiles
from controller.backends.skypilot.backend import SKY_RELEASE, SkyBackend
from controller.backends.skypilot.placement import MachinePlacement
from controller.backends.skypilot.tasks import SkyTasks
from controller.cli.options import DEFAULT_HOME, RunOptions, ServeOptions, TargetOptions
from controller.cli.targets.base import Target, fixed_capacity
from controller.jobs.manifests import Placement
from controller.run.capacity import Capacity
from imgsearch.errors import UsageError
from imgsearch.settings import Settings


class SkyTarget(Target):
    """Machines that SkyPilot rents, without Kubernetes."""

    def __init__(self, options: TargetOptions, env: Mapping[str, str]) -> None:
        """Raises UsageError where SkyPilot is not installed, or where its tasks have no storage."""
        if options.local or options.context or options.pool or options.namespace:
            raise UsageError("--backend sky cannot be used with --local, --context, --pool or --namespace")
        if not installed():
            raise UsageError(INSTALL)
        settings = taskfiles.read_settings(options.sky_tasks or taskfiles.TASKS, env)  # before a server is started
        self._sky = rented_machines(options, env)
        same = replace(options, release=TargetOptions().release)
        super().__init__(self._sky, settings, release=SKY_RELEASE, options=same)

    def resources(self, options: RunOptions, settings: Settings) -> tuple[Capacity, Placement | None]:
        if options.max_parallelism:
            raise UsageError("--max-parallelism counts the GPUs of a cluster: with --backend sky, use --parallelism")
        placement = MachinePlacement(options.accelerators, options.spot)
        return fixed_capacity(options, settings, self._sky), placement

    def check(self, job: Mapping[str, Any]) -> None:
        self._sky.check(job)

    def serve(self, options: ServeOptions) -> int:
        raise UsageError(
            "`controller serve` does not work with --backend sky: use `sky serve up sky/serve.yaml` (sky/README.md)"
        )

    def interrupted(self, run: str) -> str:
        return "The machines of the run continue and then end. The same command resumes the run"


def rented_machines(options: TargetOptions, env: Mapping[str, str]) -> SkyBackend:
    """The machines that SkyPilot rents. Raises UsageError where it is not installed."""
    home = (options.home or DEFAULT_HOME).expanduser()
    return SkyBackend(home, SkyTasks(), env=env, files=options.sky_tasks or taskfiles.TASKS)
