"""Query jobs: short Jobs that run one command of a program in the cluster and return its output."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

from controller.backends.kubernetes.api import Api, Object
from controller.backends.kubernetes.errors import AlreadyExists
from controller.backends.kubernetes.progress import JOBS, POLL_SECONDS, RunProgress
from controller.jobs.results import Output, exit_error, parse_output
from controller.jobs.state import Phase, Stage
from imgsearch import labels
from imgsearch.errors import TemporaryError

START_SECONDS = 300.0
"""Time for a query job to start."""
RUN_SECONDS = 3600.0
"""Time for a query job that runs to end: an evaluation reads every vector."""


def run_query_job(
    api: Api,
    job: Object,
    command: str,
    follow: Callable[[str, threading.Event], RunProgress],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Output:
    """Runs a Job of one pod, reads its log and deletes it. `follow` returns the progress of a label selector's Jobs.

    Raises the error of the program, and TemporaryError where it does not start or end in time."""
    name = job["metadata"]["name"]
    try:
        with suppress(AlreadyExists):  # created by an attempt whose response was lost
            api.create(*JOBS, job)
        changed = threading.Event()
        with closing(follow(f"{labels.QUERY}={name}", changed)) as progress:
            pod = _wait(name, progress, changed, clock)
        return parse_output(api.log(pod))
    except ValueError as error:
        raise TemporaryError(f"invalid output of {command}: {error}") from error
    finally:
        api.delete(*JOBS, name)


def _wait(name: str, progress: RunProgress, changed: threading.Event, clock: Callable[[], float]) -> str:
    """The name of the pod, once it has succeeded."""
    begun = clock()
    progress.follow()
    while True:
        state, pod = progress.states().get(Stage.INGEST), progress.pod(0)
        if state is None or (state.phase is Phase.COMPLETE and pod is None):
            raise TemporaryError(f"Job {name} was deleted before its output was read: try again")
        if state.phase is Phase.COMPLETE and pod:
            return pod.name
        if state.phase is Phase.FAILED:
            raise exit_error(pod.code if pod else None, next(iter(state.errors().values()), state.reason))
        limit = RUN_SECONDS if pod and pod.phase == "Running" else START_SECONDS
        if clock() >= begun + limit:
            reason = next(iter({**state.refused, **state.waiting}), "it still runs")
            raise TemporaryError(f"Job {name} did not end within {limit:.0f} s ({reason}): try again")
        changed.wait(POLL_SECONDS)
        changed.clear()
