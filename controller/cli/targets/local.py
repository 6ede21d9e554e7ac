"""This machine as the target of commands: Jobs are processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from controller.backends.local import LOCAL_RELEASE, LocalBackend
from controller.cli import settings as run_settings
from controller.cli.options import DEFAULT_HOME, RunOptions, ServeOptions, TargetOptions
from controller.cli.targets.base import Target, fixed_capacity
from controller.jobs.manifests import Placement
from controller.run.capacity import Capacity
from imgsearch import distribution
from imgsearch.errors import UsageError
from imgsearch.settings import Settings


class LocalTarget(Target):
    """This machine: Jobs are processes."""

    def __init__(self, options: TargetOptions, env: Mapping[str, str]) -> None:
        home = options.home or DEFAULT_HOME
        self._local = LocalBackend(home.expanduser(), env=env)
        same = TargetOptions(home=options.home, local=options.home is None)
        super().__init__(self._local, run_settings.local_settings(home), release=LOCAL_RELEASE, options=same)

    def source(self, source: str) -> str:
        run_settings.check_source(source)
        return run_settings.local_source(source)

    def model(self, model: str | None) -> str | None:
        run_settings.check_model(model)
        return model

    def require_programs(self) -> None:
        missing = [package for package in ("torch", "chromadb") if importlib.util.find_spec(package) is None]
        if missing:
            raise UsageError(f"work on this machine needs {' and '.join(missing)}: {distribution.install('all')}")

    def resources(self, options: RunOptions, settings: Settings) -> tuple[Capacity, Placement | None]:
        if options.accelerators or options.spot or options.max_parallelism:
            raise UsageError(
                "--accelerator, --spot and --max-parallelism select nodes of a cluster: remove them, or remove --local"
            )
        return fixed_capacity(options, settings, self.backend), None

    def serve(self, options: ServeOptions) -> int:
        self.require_programs()
        return self._local.program("searcher", "serve", run_settings.serving(self.settings, options))

    def check_stop(self, run: str) -> None:
        raise UsageError(f"a command on this machine runs the Jobs of run {run}: press Ctrl-C where it runs")

    def interrupted(self, run: str) -> str:
        return "Stopping after the current parts are written. The same command resumes the run"
