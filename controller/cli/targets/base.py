"""The target of a command: this machine, a release of the chart in a cluster, or machines that SkyPilot rents."""

from __future__ import annotations

import importlib.util
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controller.backends import Backend, EventRecorder, JobBackend, Scaler
from controller.backends.kubernetes.gpus import NodeGpuFinder
from controller.backends.local import LOCAL_RELEASE, LocalBackend
from controller.backends.skypilot import INSTALL, installed
from controller.backends.skypilot.gpus import SkyGpuFinder
from controller.backends.skypilot.placement import MachinePlacement
from controller.backends.skypilot.pools import ensure_pool
from controller.cli import settings as run_settings
from controller.cli.options import DEFAULT_HOME, RunOptions, TargetOptions, to_arguments
from controller.gpus.affinity import NodePlacement
from controller.gpus.nodes import GpuFinder, find, room
from controller.jobs.manifests import Placement
from controller.jobs.results import Output
from controller.run.capacity import Capacity
from imgsearch import distribution
from imgsearch.errors import UsageError
from imgsearch.settings import EvaluateSettings, RunSettings, Settings

if TYPE_CHECKING:
    from controller.backends.kubernetes.api import Api
    from controller.backends.skypilot.backend import SkyBackend


class Target(ABC):
    """The backend of a command, and the settings of its storage and store."""

    scaler: Scaler | None = None
    """None: a running Job keeps its number of pods."""
    events: EventRecorder | None = None
    """None: this target has no events."""

    def __init__(self, backend: Backend, settings: Settings, *, release: str, options: TargetOptions) -> None:
        """`options` are those that select the same target again."""
        self.backend = backend
        self.settings = settings
        self.release = release
        self.flags = "".join(f" {shlex.quote(word)}" for word in to_arguments(options))
        """The options as text to append to the next command: empty, or with a space in front."""

    def source(self, source: str) -> str:
        """A source as the programs of this target find it. Raises UsageError where they cannot."""
        return run_settings.pod_source(source)

    def model(self, model: str | None) -> str | None:
        """A model as the programs of this target find it. Raises UsageError where they cannot."""
        return run_settings.pod_model(model)

    def require_programs(self) -> None:  # noqa: B027 -- only this machine runs programs that may be missing
        """Raises UsageError where a package that a run needs is not installed."""

    def check(self, job: Mapping[str, Any]) -> None:  # noqa: B027 -- this machine runs every Job
        """Raises UsageError where the backend would refuse this Job. Creates nothing."""

    @abstractmethod
    def resources(self, options: RunOptions, settings: Settings) -> tuple[Capacity, Placement | None]:
        """The number of shards at a time, and the GPUs or machines that the options select.

        Raises UsageError for options that this target does not have."""

    def run_backend(self, options: RunOptions, settings: Settings) -> JobBackend:
        """The backend for the Jobs of this run."""
        if options.overflow:
            raise UsageError(f"--overflow adds rented machines to the nodes of a cluster: remove{self.flags}")
        return self.backend

    def controller_job(self, options: RunOptions, settings: Settings) -> Mapping[str, Any]:
        """The Job that runs this command in the cluster. Raises UsageError where there is no cluster."""
        raise self._no_cluster()

    def start_controller(self, job: Mapping[str, Any]) -> None:
        """Starts that Job."""
        raise self._no_cluster()

    @abstractmethod
    def serve(self, host: str, port: int) -> int:
        """Serves until it is stopped and returns the exit code. Raises UsageError where another program serves."""

    @abstractmethod
    def interrupted(self, run: str) -> str:
        """One sentence about a run whose controller was interrupted."""

    def call(self, verb: str, run: RunSettings, evaluate: EvaluateSettings | None = None) -> Output:
        """Runs `python -m searcher VERB` where the data is."""
        settings = Settings(
            run=run,
            storage=self.settings.storage,
            store=self.settings.store,
            evaluate=evaluate or EvaluateSettings(),
        )
        return self.backend.call("searcher", verb, settings)

    def query(self, verb: str, run: RunSettings | None = None) -> Mapping[str, Any]:
        """The result of such a call."""
        return self.call(verb, run or RunSettings()).result

    def published(self, index: str) -> str | None:
        """The run that an index serves."""
        return next((row["run"] for row in self.query("indexes")["indexes"] if row["index"] == index), None)

    def _no_cluster(self) -> UsageError:
        return UsageError(f"--detach runs the controller in a cluster: remove{self.flags}")


class LocalTarget(Target):
    """This machine: Jobs are processes."""

    def __init__(self, options: TargetOptions, env: Mapping[str, str]) -> None:
        home = options.home or DEFAULT_HOME
        self._local = LocalBackend(home.expanduser(), env=env)
        again = TargetOptions(home=options.home, local=options.home is None)
        super().__init__(self._local, run_settings.local_settings(home), release=LOCAL_RELEASE, options=again)

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
        return _fixed_capacity(options, settings, self.backend), None

    def serve(self, host: str, port: int) -> int:
        self.require_programs()
        return self._local.program("searcher", "serve", run_settings.serving(self.settings, host=host, port=port))

    def interrupted(self, run: str) -> str:
        return "Stopping after the current parts are written. The same command resumes the run"


class ReleaseTarget(Target):
    """A release of the chart in a cluster."""

    def __init__(self, options: TargetOptions, env: Mapping[str, str]) -> None:
        """Raises UsageError where the options select no cluster, or one without such a release."""
        from controller.backends.kubernetes.backend import KubernetesBackend
        from controller.backends.kubernetes.events import Events

        self._api, self._context = connect(options, env)
        self._kubernetes = KubernetesBackend(self._api, options.release)
        self.scaler = self._kubernetes
        self.events = Events(self._api)
        self._options = options
        self._env = env
        settings = self._kubernetes.settings()
        again = replace(options, sky_tasks=None)
        super().__init__(self._kubernetes, settings, release=options.release, options=again)

    def resources(self, options: RunOptions, settings: Settings) -> tuple[Capacity, Placement | None]:
        jobs, most = settings.jobs, options.max_parallelism
        if not (options.accelerators or options.spot or most):
            return _fixed_capacity(options, settings, self._kubernetes), None
        if most and not options.accelerators:
            raise UsageError("--max-parallelism needs --accelerator: it counts the free GPUs of that kind")
        nodes = finder(self._api, self._context, jobs.autoscaler)
        matches = find(nodes, options.accelerators) if options.accelerators else []
        start = options.parallelism or (None if most else jobs.parallelism)
        if start is None and most and jobs.autoscaler:
            start = most  # an autoscaler adds nodes for pods that wait
        if start is None:
            start = room(matches) if matches else self._kubernetes.parallelism()
        capacity = Capacity(
            max(1, min(start, most or start)),
            most=most,
            room=lambda: room(find(nodes, options.accelerators)),
            patience=jobs.capacity_seconds,
        )
        return capacity, NodePlacement(tuple(matches), options.spot)

    def check(self, job: Mapping[str, Any]) -> None:
        self._kubernetes.check(job)

    def run_backend(self, options: RunOptions, settings: Settings) -> JobBackend:
        if not options.overflow:
            return self._kubernetes
        from controller.backends import overflow

        overflow.check(settings)
        patience = settings.jobs.capacity_seconds
        if patience is not None and patience <= options.overflow_after:
            raise UsageError(
                f"invalid --overflow-after {options.overflow_after:g} s: use less than jobs.capacity_seconds "
                f"({patience} s) of the release, or increase that setting"
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

    def serve(self, host: str, port: int) -> int:
        raise UsageError(
            "`controller serve` serves on this machine: add --local. In a cluster, the chart's searcher serves"
        )

    def interrupted(self, run: str) -> str:
        return (
            "The Jobs of the run continue in the cluster, but the next stage needs a controller. The same command "
            "resumes the run (with --detach: in the cluster). "
            f"`controller status {run} --watch{self.flags}` shows the progress"
        )


class SkyTarget(Target):
    """Machines that SkyPilot rents, without Kubernetes."""

    def __init__(self, options: TargetOptions, env: Mapping[str, str]) -> None:
        """Raises UsageError where SkyPilot is not installed, or where its tasks have no storage."""
        from controller.backends.skypilot import backend, taskfiles

        if options.local or options.context or options.pool or options.namespace:
            raise UsageError("--backend sky cannot be used with --local, --context, --pool or --namespace")
        if not installed():
            raise UsageError(INSTALL)
        settings = taskfiles.read_settings(options.sky_tasks or taskfiles.TASKS, env)  # before a server is started
        self._sky = rented_machines(options, env)
        again = replace(options, release=TargetOptions().release)
        super().__init__(self._sky, settings, release=backend.SKY_RELEASE, options=again)

    def resources(self, options: RunOptions, settings: Settings) -> tuple[Capacity, Placement | None]:
        if options.max_parallelism:
            raise UsageError("--max-parallelism counts the GPUs of a cluster: with --backend sky, use --parallelism")
        placement = MachinePlacement(options.accelerators, options.spot)
        return _fixed_capacity(options, settings, self._sky), placement

    def check(self, job: Mapping[str, Any]) -> None:
        self._sky.check(job)

    def serve(self, host: str, port: int) -> int:
        raise UsageError(
            "`controller serve` does not work with --backend sky: use `sky serve up sky/serve.yaml` (sky/README.md)"
        )

    def interrupted(self, run: str) -> str:
        return "The machines of the run continue and then end. The same command resumes the run"


def open_target(options: TargetOptions, env: Mapping[str, str]) -> Target:
    """The target that the options select. Raises UsageError where it does not exist."""
    if options.backend == "sky":
        return SkyTarget(options, env)
    if options.local or options.home is not None:
        return LocalTarget(options, env)
    return ReleaseTarget(options, env)


def connect(options: TargetOptions, env: Mapping[str, str]) -> tuple[Api, str | None]:
    """The Kubernetes API that the options select, and its context. Raises UsageError where there is none."""
    from controller.backends.kubernetes.connection import connect  # takes half a second; local work does not need it

    kubeconfig = env.get("KUBECONFIG")
    context = ensure_pool(options.pool, kubeconfig=kubeconfig) if options.pool else options.context
    return connect(kubeconfig=kubeconfig, context=context, namespace=options.namespace), context


def finder(api: Api, context: str | None, autoscaler: str | None) -> GpuFinder:
    """Finds the GPUs of a cluster: with SkyPilot where it is installed."""
    if installed():
        return SkyGpuFinder(context, autoscaler=autoscaler)
    return NodeGpuFinder(api, autoscaler=autoscaler)


def rented_machines(options: TargetOptions, env: Mapping[str, str]) -> SkyBackend:
    """The machines that SkyPilot rents. Raises UsageError where it is not installed."""
    from controller.backends.skypilot.backend import SkyBackend
    from controller.backends.skypilot.taskfiles import TASKS
    from controller.backends.skypilot.tasks import SkyTasks

    home = (options.home or DEFAULT_HOME).expanduser()
    return SkyBackend(home, SkyTasks(), env=env, files=options.sky_tasks or TASKS)


def _fixed_capacity(options: RunOptions, settings: Settings, backend: Backend) -> Capacity:
    jobs = settings.jobs
    return Capacity(options.parallelism or jobs.parallelism or backend.parallelism(), patience=jobs.capacity_seconds)
