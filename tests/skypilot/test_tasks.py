"""What needs no machine of the real SkyPilot: its errors as ours, its logs as ours, and our tasks as its."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from sky import Task, exceptions
from sky.server import common

from controller.backends.skypilot import attempts
from controller.backends.skypilot.attempts import TaskStatus
from controller.backends.skypilot.backend import SKY_RELEASE, SkyBackend
from controller.backends.skypilot.placement import TASK, MachinePlacement
from controller.backends.skypilot.tasks import SkyTasks, plain, refusal, unanswered
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import Spot
from controller.jobs import manifests
from controller.jobs.state import Stage
from imgsearch.errors import TemporaryError, UsageError
from imgsearch.settings import RunSettings, Settings
from tests.controller.machines import Clock, Machines

FULL = exceptions.ResourcesUnavailableError("Timed out while waiting for nodes. Insufficient nvidia.com/gpu")


@pytest.fixture
def unreachable_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SkyPilot's API server is one that nobody answers at."""
    monkeypatch.setenv("SKYPILOT_API_SERVER_ENDPOINT", "http://127.0.0.1:9")
    forget()
    yield
    monkeypatch.undo()
    forget()


def forget() -> None:
    common.get_server_url.cache_clear()
    common.is_api_server_local.cache_clear()


def test_a_server_that_does_not_answer_is_named(unreachable_server: None) -> None:
    with pytest.raises(TemporaryError, match=r"API server does not answer \(.*127\.0\.0\.1:9"):
        SkyTasks()


def test_where_no_server_may_be_started_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYPILOT_DISABLE_LOCAL_API_SERVER", "1")
    monkeypatch.setenv("SKYPILOT_API_SERVER_LOCAL_PORT", "9")
    forget()
    with pytest.raises(UsageError, match="sky api login"):
        SkyTasks()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.ResourcesUnavailableError("no cloud has a FOO"), TaskStatus.REFUSED),
        (exceptions.ResourcesUnavailableError("all full").with_failover_history([FULL]), TaskStatus.UNAVAILABLE),
        (exceptions.KubeAPIUnreachableError("the cluster is away"), TaskStatus.UNAVAILABLE),
        (exceptions.NoCloudAccessError("no cloud is enabled"), TaskStatus.REFUSED),
        (exceptions.NotSupportedError("spot machines there are none"), TaskStatus.REFUSED),
        (exceptions.InvalidCloudCredentials("expired"), TaskStatus.REFUSED),
        (exceptions.RequestCancelled("cancelled"), TaskStatus.UNAVAILABLE),
        (exceptions.CloudError("the price list cannot be had", "a", "b"), TaskStatus.UNAVAILABLE),
        (RuntimeError("its runtime could not be installed"), TaskStatus.UNAVAILABLE),
        (ValueError("no such image"), TaskStatus.REFUSED),
    ],
)
@pytest.mark.parametrize("machine", [True, False])
def test_never_is_told_from_not_now(error: Exception, expected: TaskStatus, machine: bool) -> None:
    state = refusal(error, machine=machine)
    assert (state.status, state.machine) == (expected, machine)
    assert state.reason


def test_why_there_is_none_is_what_the_last_place_has_said() -> None:
    error = exceptions.ResourcesUnavailableError("Failed. Relax the requirements").with_failover_history([FULL])
    assert refusal(error, machine=False).reason == "Timed out while waiting for nodes. Insufficient nvidia.com/gpu"


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (requests.ConnectionError("refused"), TemporaryError),
        (exceptions.ApiServerConnectionError("http://x"), TemporaryError),
        (exceptions.APIVersionMismatchError("client 1, server 2"), UsageError),
        (exceptions.ApiServerAuthenticationError("http://x"), UsageError),
    ],
)
def test_a_question_without_an_answer_is_no_failed_launch(error: Exception, error_type: type[Exception]) -> None:
    with pytest.raises(error_type):
        refusal(error, machine=False)
    assert unanswered(ValueError("no such image")) is None


def test_of_a_log_only_what_the_task_has_printed_is_left() -> None:
    log = (
        "├── Waiting for task resources on 1 node.\n"
        "└── Job started. Streaming logs... (Ctrl-C to exit log streaming; job will not be killed)\n"
        f"\x1b[36m(imgsearch-embed, pid=1234)\x1b[0m {attempts.BEGIN_MARK}\n"
        "(imgsearch-embed, pid=1234) (a line of ours)\n"
        "(imgsearch-embed, pid=1234) \n"
        f'(imgsearch-embed, pid=1234) {attempts.RESULT_MARK} 0 {{"images": 3}}\n'
        "✓ Job finished (status: SUCCEEDED).\n"
    )
    assert plain(log) == f'{attempts.BEGIN_MARK}\n(a line of ours)\n\n{attempts.RESULT_MARK} 0 {{"images": 3}}\n'
    task_exit = attempts.parse_exit(plain(log))
    assert task_exit is not None
    assert (task_exit.code, task_exit.result, task_exit.printed) == (0, {"images": 3}, "(a line of ours)\n")


@pytest.mark.parametrize("stage", [*Stage])
@pytest.mark.parametrize("kinds", [(), (Kind("L4"),), (Kind("L4"), Kind("A10G"))])
@pytest.mark.parametrize("spot", [None, *Spot])
def test_what_is_submitted_is_a_task(tmp_path: Path, stage: Stage, kinds: tuple[Kind, ...], spot: Spot | None) -> None:
    machines = Machines(tmp_path)
    machines.unavailable = "no machine"
    clock = Clock(machines)
    cluster = SkyBackend(tmp_path, machines, env={"HF_TOKEN": "hush"}, now=clock.now, sleep=clock.sleep)
    settings = Settings(run=RunSettings(id="r1", index="photos", source="s3://photos", model="a/b"))
    job = manifests.job(
        stage,
        settings,
        cluster.template(stage),
        release=SKY_RELEASE,
        completions=1,
        parallelism=1,
        placement=MachinePlacement(kinds, spot),
    )
    assert TASK in job["spec"]["template"]["metadata"]["annotations"]
    cluster.create(job)
    ((_, submitted),) = machines.submitted
    task = Task.from_yaml_config(json.loads(json.dumps(submitted)))
    assert task.envs["JOB_COMPLETION_INDEX"] == "0"
    assert "hush" not in str(task.envs)
    if stage is Stage.EMBED:
        requested = {(name, resources.use_spot) for resources in task.resources for name in resources.accelerators}
        spot_values = {None: {True}, Spot.ONLY: {True}, Spot.NEVER: {False}, Spot.PREFER: {True, False}}[spot]
        assert {use_spot for _, use_spot in requested} == spot_values
        assert not kinds or {name for name, _ in requested} == {kind.name for kind in kinds}
