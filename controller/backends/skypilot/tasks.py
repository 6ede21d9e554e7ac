"""Tasks on machines that SkyPilot rents: one cluster of its own for each, by name, which goes when the task has ended.

Not SkyPilot's managed jobs, which would find another spot machine by themselves: they need one more machine that
watches them, try again what no retry can mend, and never give up. Who counts the tries of a completion index
(controller.backends.skypilot.attempts) needs only to know that a machine is gone.

It is the person's own SkyPilot: `~/.sky`, their clouds' keys, and the API server that `sky api login` names or that
listens on this machine; where none does, one is started, and it goes on after this. So `sky status` shows every machine
that costs, and `sky down` ends it, whatever becomes of the controller. It phones home only where
SKYPILOT_DISABLE_USAGE_COLLECTION is set to 0, as long as it is started from here.
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
from controller.backends.skypilot.attempts import Look, Seen
from controller.backends.skypilot.messages import clean
from imgsearch.errors import ImgsearchError, TemporaryError, UsageError

IDLE_MINUTES = 15
"""So long a machine stays whose task has ended without anybody asking: its log is on it."""
PREFIX = re.compile(r"^\x1b?\[?[0-9;]*m?\([^()]*\bpid=\d+[^()]*\)(?:\x1b\[0m)? ?")
"""What SkyPilot puts before each line of a task: `(imgsearch-embed, pid=1234) `."""
LAUNCH = "sky.launch"
AT_WORK = ("PENDING", "WAITING", "RUNNING")
REASON_CHARACTERS = 300


class SkyTasks:
    """Tasks by name (controller.backends.skypilot.backend.Tasks) on SkyPilot's SDK."""

    def __init__(self) -> None:
        """Imports SkyPilot, two seconds, and starts its API server where there is none, ten more.

        Raises UsageError where SkyPilot is not installed or its server is of another version, TemporaryError where the
        server does not answer."""
        if not installed():
            raise UsageError(INSTALL)
        os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
        from sky.server import common

        # It logs to stdout, what it also raises.
        logger = logging.getLogger("sky")
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.CRITICAL)
        with _asking():
            common.check_server_healthy_or_start_fn()

    def submit(self, name: str, task: Mapping[str, Any]) -> None:
        from sky import Task
        from sky.client import sdk

        try:
            made = Task.from_yaml_config(dict(task))
        except ValueError as error:
            raise UsageError(f"task {task.get('name', name)} is none of SkyPilot's: {_sentence(error)}") from error
        with _asking():
            sdk.launch(made, cluster_name=name, idle_minutes_to_autostop=IDLE_MINUTES, down=True)

    def look(self, names: Sequence[str]) -> Mapping[str, Look]:
        from sky.client import sdk
        from sky.utils.common import StatusRefreshMode

        with _asking():
            # AUTO: a spot machine is asked for at its cloud, any other is taken for what it was.
            there = sdk.get(sdk.status([*names], refresh=StatusRefreshMode.AUTO, all_users=True))
        records = {record.name: record for record in there}
        return {name: self._look(name, records.get(name)) for name in names}

    def log(self, name: str, lines: int | None = None) -> str:
        from sky import exceptions
        from sky.client import sdk

        said = io.StringIO()
        with _asking():
            try:
                sdk.tail_logs(name, None, follow=False, tail=lines or 0, output_stream=said)
            except (exceptions.ClusterDoesNotExist, exceptions.ClusterNotUpError):
                return ""
        return plain(said.getvalue())

    def down(self, name: str) -> None:
        from sky import exceptions
        from sky.client import sdk

        with _asking():
            for request in self._requests(name):
                if request.name == LAUNCH and request.status in AT_WORK:
                    sdk.get(sdk.api_cancel([request.request_id], silent=True))
                if request.name == "sky.down" and request.status in AT_WORK:
                    return
            try:
                sdk.down(name)
            except exceptions.ClusterDoesNotExist:
                return

    def _look(self, name: str, record: Any | None) -> Look:
        from sky.client import sdk
        from sky.utils.status_lib import ClusterStatus

        machine = record is not None
        if record is None or record.status is not ClusterStatus.UP or not (jobs := self._queue(name)):
            launches = [request for request in self._requests(name) if request.name == LAUNCH]
            last = max(launches, key=lambda request: request.created_at, default=None)
            if last is None:
                return Look(Seen.GONE, machine=machine)
            if last.status in AT_WORK:
                why = record.init_status_reason if record is not None else None
                return Look(Seen.WAITING, why or last.status_msg or "its machine is made ready", machine=True)
            if last.status == "SUCCEEDED":
                return Look(Seen.GONE, machine=machine)
            try:
                with _quiet():
                    sdk.get(last.request_id)
            except Exception as error:  # whatever a cloud's module raises comes to us as it is
                return refusal(error, machine=machine)
            return Look(Seen.GONE, machine=machine)
        job = max(jobs, key=lambda job: job.job_id)
        return Look(Seen.ENDED if job.status.is_terminal() else Seen.RUNNING, machine=True)

    def _queue(self, name: str) -> Sequence[Any]:
        from sky import exceptions
        from sky.client import sdk

        with _asking():
            try:
                return sdk.get(sdk.queue(name, all_users=True))  # type: ignore[no-any-return]
            except (exceptions.ClusterDoesNotExist, exceptions.ClusterNotUpError):
                return []

    def _requests(self, name: str) -> Sequence[Any]:
        from sky.client import sdk

        with _asking():
            return sdk.api_status(all_status=True, cluster_name=name)  # type: ignore[no-any-return]


def refusal(error: Exception, *, machine: bool) -> Look:
    """What a launch has failed of. `machine`: whether it has left something. Raises what it means where it is not the
    launch that has failed, but the question after it."""
    if trouble := unanswered(error):
        raise trouble from error
    told = getattr(error, "failover_history", None) or [error]  # what the last place has said
    return Look(Seen.REFUSED if _is_final(error) else Seen.NOWHERE, _sentence(told[-1]), machine)


def _is_final(error: Exception) -> bool:
    """Whether the same request would fail again: a machine that no place has, or that this account may not have."""
    from sky import exceptions

    if isinstance(error, exceptions.KubeAPIUnreachableError):  # first: it is a ResourcesUnavailableError, too
        return False
    if isinstance(error, exceptions.ResourcesUnavailableError):
        return not error.failover_history  # no place was even asked
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
    """What it means where SkyPilot's server did not answer as it should; None where it did, and has raised this."""
    import requests
    from sky import exceptions

    match error:
        case exceptions.APIVersionMismatchError() | exceptions.APINotSupportedError():
            return UsageError(f"SkyPilot's API server is of another version than this one: {_sentence(error)}")
        case exceptions.ApiServerAuthenticationError():
            return UsageError(f"SkyPilot's API server does not know who asks: {_sentence(error)}")
        case (
            requests.RequestException()
            | exceptions.ApiServerConnectionError()
            | exceptions.ServerTemporarilyUnavailableError()
            | exceptions.RequestInterruptedError()
        ):
            return TemporaryError(f"SkyPilot's API server does not answer ({_sentence(error)}): try again")
    if "SKYPILOT_DISABLE_LOCAL_API_SERVER" in str(error):
        return UsageError(
            "SkyPilot has no API server here and may start none: `sky api login -e ENDPOINT` names one, or unset "
            "SKYPILOT_DISABLE_LOCAL_API_SERVER"
        )
    return None


@contextmanager
def _asking() -> Iterator[None]:
    """With our errors."""
    try:
        with _quiet():
            yield
    except Exception as error:  # a cloud's module may raise what it likes
        raise unanswered(error) or TemporaryError(f"SkyPilot cannot do it now: {_sentence(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """With nothing of SkyPilot's on stdout."""
    with whole_tracebacks(), redirect_stdout(io.StringIO()):
        yield


def plain(log: str) -> str:
    """What a task has printed, without what SkyPilot puts before each line and around the whole."""
    lines = log.splitlines(keepends=True)
    return "".join(PREFIX.sub("", line) for line in lines if PREFIX.match(line))


def _sentence(error: object) -> str:
    """The first lines of an error, as one."""
    text = " ".join(clean(str(error)).split()) or type(error).__name__
    return text if len(text) <= REASON_CHARACTERS else f"{text[:REASON_CHARACTERS]}…"
