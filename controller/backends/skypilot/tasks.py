"""Tasks on machines that SkyPilot rents: each task has a SkyPilot cluster of its own, which ends with the task.

SkyPilot's managed jobs would replace a lost spot machine by themselves. But they need one more machine to watch them,
retry errors that a retry cannot fix, and never give up. Our own retries (controller.backends.skypilot.attempts) only
need to know that a machine is gone.

The tasks use the SkyPilot of the user: `~/.sky`, the keys of their clouds, and the API server of `sky api login` or of
this machine. Where there is none, one is started, and it continues after this program. So `sky status` shows every
machine that costs money, and `sky down` ends it, even after the controller was killed. An API server that is started
here sends usage data only where SKYPILOT_DISABLE_USAGE_COLLECTION is 0.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from controller.backends.skypilot import INSTALL, installed, whole_tracebacks
from controller.backends.skypilot.attempts import TaskState, TaskStatus
from controller.backends.skypilot.messages import clean
from imgsearch.errors import ImgsearchError, TemporaryError, UsageError

IDLE_MINUTES = 15
"""Time for which a machine with an ended task stays, so that its log can be read."""
LINE_PREFIX = re.compile(r"^\x1b?\[?[0-9;]*m?\([^()]*\bpid=\d+[^()]*\)(?:\x1b\[0m)? ?")
"""The prefix of each line of a task: `(imgsearch-embed, pid=1234) `."""
LAUNCH = "sky.launch"
ACTIVE = ("PENDING", "WAITING", "RUNNING")
REASON_CHARACTERS = 300


class SkyTasks:
    """The Tasks of reconciler.py, with SkyPilot's SDK."""

    def __init__(self) -> None:
        """Imports SkyPilot, which takes 2 s, and starts its API server if none runs, which takes 10 s.

        Raises UsageError where SkyPilot is not installed or its server has another version, TemporaryError where the
        server does not answer."""
        if not installed():
            raise UsageError(INSTALL)
        os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
        from sky.server import common

        # It logs to stdout, and also raises its errors.
        logger = logging.getLogger("sky")
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.CRITICAL)
        with _errors_translated():
            common.check_server_healthy_or_start_fn()

    def submit(self, name: str, task: Mapping[str, Any]) -> None:
        from sky import Task
        from sky.client import sdk

        try:
            parsed = Task.from_yaml_config(dict(task))
        except ValueError as error:
            raise UsageError(f"invalid SkyPilot task {task.get('name', name)}: {_message(error)}") from error
        with _errors_translated():
            sdk.launch(parsed, cluster_name=name, idle_minutes_to_autostop=IDLE_MINUTES, down=True)

    def states(self, names: Sequence[str]) -> Mapping[str, TaskState]:
        from sky.client import sdk
        from sky.utils.common import StatusRefreshMode

        with _errors_translated():
            # AUTO: the cloud is asked about a spot machine; the last known status of any other is used.
            clusters = sdk.get(sdk.status([*names], refresh=StatusRefreshMode.AUTO, all_users=True))
        records = {record.name: record for record in clusters}
        return {name: self._state(name, records.get(name)) for name in names}

    def log(self, name: str, lines: int | None = None) -> str:
        from sky import exceptions
        from sky.client import sdk

        output = io.StringIO()
        with _errors_translated():
            try:
                sdk.tail_logs(name, None, follow=False, tail=lines or 0, output_stream=output)
            except (exceptions.ClusterDoesNotExist, exceptions.ClusterNotUpError):
                return ""
        return plain(output.getvalue())

    def down(self, name: str) -> None:
        from sky import exceptions
        from sky.client import sdk

        with _errors_translated():
            for request in self._requests(name):
                if request.name == LAUNCH and request.status in ACTIVE:
                    sdk.get(sdk.api_cancel([request.request_id], silent=True))
                if request.name == "sky.down" and request.status in ACTIVE:
                    return
            try:
                sdk.down(name)
            except exceptions.ClusterDoesNotExist:
                return

    def _state(self, name: str, record: Any | None) -> TaskState:
        from sky.client import sdk
        from sky.utils.status_lib import ClusterStatus

        machine = record is not None
        if record is None or record.status is not ClusterStatus.UP or not (jobs := self._queue(name)):
            launches = [request for request in self._requests(name) if request.name == LAUNCH]
            last = max(launches, key=lambda request: request.created_at, default=None)
            if last is None:
                return TaskState(TaskStatus.GONE, machine=machine)
            if last.status in ACTIVE:
                reason = record.init_status_reason if record is not None else None
                return TaskState(
                    TaskStatus.WAITING, reason or last.status_msg or "its machine is being prepared", machine=True
                )
            if last.status == "SUCCEEDED":
                return TaskState(TaskStatus.GONE, machine=machine)
            try:
                with _quiet():
                    sdk.get(last.request_id)
            except Exception as error:  # may be any exception of a cloud's module
                return refusal(error, machine=machine)
            return TaskState(TaskStatus.GONE, machine=machine)
        job = max(jobs, key=lambda job: job.job_id)
        return TaskState(TaskStatus.ENDED if job.status.is_terminal() else TaskStatus.RUNNING, machine=True)

    def _queue(self, name: str) -> Sequence[Any]:
        from sky import exceptions
        from sky.client import sdk

        with _errors_translated():
            try:
                return sdk.get(sdk.queue(name, all_users=True))  # type: ignore[no-any-return]
            except (exceptions.ClusterDoesNotExist, exceptions.ClusterNotUpError):
                return []

    def _requests(self, name: str) -> Sequence[Any]:
        from sky.client import sdk

        with _errors_translated():
            return sdk.api_status(all_status=True, cluster_name=name)  # type: ignore[no-any-return]


def refusal(error: Exception, *, machine: bool) -> TaskState:
    """The state of a task whose launch failed with this error. `machine`: whether the launch left a machine. Raises
    another error where the request about the launch failed, not the launch."""
    if no_response := unanswered(error):
        raise no_response from error
    errors = getattr(error, "failover_history", None) or [error]  # by place; the last one counts
    return TaskState(TaskStatus.REFUSED if _is_final(error) else TaskStatus.UNAVAILABLE, _message(errors[-1]), machine)


def _is_final(error: Exception) -> bool:
    """Whether the same request would fail again: no place has such machines, or the account is not allowed to rent
    them."""
    from sky import exceptions

    if isinstance(error, exceptions.KubeAPIUnreachableError):  # first: it is a ResourcesUnavailableError, too
        return False
    if isinstance(error, exceptions.ResourcesUnavailableError):
        return not error.failover_history  # no place qualified
    final = (
        exceptions.CloudUserIdentityError,
        exceptions.ClusterOwnerIdentityMismatchError,
        exceptions.InvalidCloudConfigs,
        exceptions.InvalidCloudCredentials,
        exceptions.InvalidClusterNameError,
        exceptions.NoCloudAccessError,
        exceptions.NotSupportedError,
        exceptions.PermissionDeniedError,
        exceptions.ResourcesMismatchError,
        exceptions.UserRequestRejectedByPolicy,
        ValueError,
        TypeError,
    )
    return isinstance(error, final)


def unanswered(error: Exception) -> ImgsearchError | None:
    """The error to raise where SkyPilot's server did not answer correctly; None for an error that the server raised."""
    import requests
    from sky import exceptions

    match error:
        case exceptions.APIVersionMismatchError() | exceptions.APINotSupportedError():
            return UsageError(f"SkyPilot's API server has another version than this SkyPilot: {_message(error)}")
        case exceptions.ApiServerAuthenticationError():
            return UsageError(f"authentication failed at SkyPilot's API server: {_message(error)}")
        case (
            requests.RequestException()
            | exceptions.ApiServerConnectionError()
            | exceptions.ServerTemporarilyUnavailableError()
            | exceptions.RequestInterruptedError()
        ):
            return TemporaryError(f"SkyPilot's API server does not answer ({_message(error)}): try again")
    if "SKYPILOT_DISABLE_LOCAL_API_SERVER" in str(error):
        return UsageError(
            "SkyPilot has no API server and is not allowed to start one: set one with `sky api login -e ENDPOINT`, or "
            "unset SKYPILOT_DISABLE_LOCAL_API_SERVER"
        )
    return None


@contextmanager
def _errors_translated() -> Iterator[None]:
    """Raises our errors instead of SkyPilot's."""
    try:
        with _quiet():
            yield
    except Exception as error:  # may be any exception of a cloud's module
        raise unanswered(error) or TemporaryError(f"SkyPilot failed: {_message(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses SkyPilot's output on stdout."""
    with whole_tracebacks(), redirect_stdout(io.StringIO()):
        yield


def plain(log: str) -> str:
    """The output of a task, without SkyPilot's prefix of each line and its own lines."""
    lines = log.splitlines(keepends=True)
    return "".join(LINE_PREFIX.sub("", line) for line in lines if LINE_PREFIX.match(line))


def _message(error: object) -> str:
    """The message of an error as one line, shortened."""
    text = " ".join(clean(str(error)).split()) or type(error).__name__
    return text if len(text) <= REASON_CHARACTERS else f"{text[:REASON_CHARACTERS]}…"
