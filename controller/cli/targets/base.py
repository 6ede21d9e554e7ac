"""A target of commands: its backend, and the settings of its storage and store."""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from controller.backends import Backend, EventRecorder, JobBackend, Scaler
from controller.cli import settings as run_settings
from controller.cli.options import RunOptions, ServeOptions, TargetOptions, to_arguments
from controller.jobs.manifests import Placement
from controller.jobs.results import Output
from controller.run.capacity import Capacity
from imgsearch.errors import ImgsearchError, PermanentError, UsageError
from imgsearch.settings import EvaluateSettings, RunSettings, Settings

COMMANDS = re.compile("`(controller (?:cleanup|evaluate|indexes|restore|rollback|runs|status)[^`]*)`")
"""In a message: the commands that a program names, and that select a target."""


class Target(ABC):
    """The backend of a command, and the settings of its storage and store."""

    scaler: Scaler | None = None
    """None: a running Job keeps its number of pods."""
    events: EventRecorder | None = None
    """None: this target has no events."""

    def __init__(self, backend: Backend, settings: Settings, *, release: str, options: TargetOptions) -> None:
        """`options` select the same target in the next command."""
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
    def serve(self, options: ServeOptions) -> int:
        """Serves until it is stopped and returns the exit code. Raises UsageError where another program serves."""

    def check_stop(self, run: str) -> None:  # noqa: B027 -- Jobs elsewhere can be deleted from here
        """Raises UsageError where only the command that started the Jobs of a run can end them."""

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
        try:
            return self.backend.call("searcher", verb, settings)
        except ImgsearchError as error:
            error.args = (self.with_flags(str(error)),)
            raise

    def query(self, verb: str, run: RunSettings | None = None) -> Mapping[str, Any]:
        """The result of such a call."""
        return self.call(verb, run or RunSettings()).result

    def published(self, index: str) -> str | None:
        """The run that an index serves; None: it was never published. Raises PermanentError for a lost index, and for
        an index whose entry is too long: "never published" would embed all of its images again."""
        found = self.query("indexes", RunSettings(index=index))
        if index in found.get("lost", []):  # a searcher of an earlier version has no list of them
            raise PermanentError(lost_sentence([index], self.flags))
        if found.get("left_out", {}).get("indexes"):
            raise PermanentError(f"the entry of index {index} is too long for a response: its source has a long name")
        return next((row["run"] for row in found["indexes"] if row["index"] == index), None)

    def base(self, index: str, run: str | None) -> str | None:
        """The run that an update with the id `run` starts from; None: it indexes everything.

        The same id is the same run, which keeps its base, although it may have been published since. A new run starts
        from the run that the index serves."""
        if run is not None:
            jobs = self.backend.jobs(run)
            if jobs:
                return next(iter(jobs.values())).base
            planned = self.query("planned", RunSettings(id=run))
            if planned["planned"]:
                base: str | None = planned["base"]
                return base
        return self.published(index)

    def with_flags(self, message: str) -> str:
        """A message of a program, which does not have the options of this target: its commands get them."""
        return COMMANDS.sub(lambda command: f"`{command[1]}{self.flags}`", message)

    def _no_cluster(self) -> UsageError:
        return UsageError(f"--detach runs the controller in a cluster: remove{self.flags}")


def lost_sentence(indexes: Sequence[str], flags: str, *, others: int = 0) -> str:
    """The problem that the store has lost indexes, and its solution. `others`: the number of those without a name."""
    names = ", ".join(indexes) + (f" and others ({others:,})" if others else "")
    return (
        f"the vector store does not have {names} any more, but the run folders do: rebuild it with "
        f"`controller restore{flags}`, which embeds nothing"
    )


def fixed_capacity(options: RunOptions, settings: Settings, backend: Backend) -> Capacity:
    """The number of shards at a time where it does not grow."""
    jobs = settings.jobs
    return Capacity(
        options.parallelism or jobs.parallelism or backend.parallelism(), wait_seconds=jobs.capacity_seconds
    )
