from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from imgsearch import stage
from imgsearch.errors import ExitCode, PermanentError, TemporaryError, UsageError
from imgsearch.settings import Settings


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "termination-log"


@pytest.fixture(autouse=True)
def restored_process() -> Iterator[None]:
    """The process's own logging and signals, which a stage sets up, are put back."""
    root = logging.getLogger()
    state = signal.getsignal(signal.SIGTERM), root.handlers[:], root.level
    yield
    signal.signal(signal.SIGTERM, state[0])
    root.handlers[:] = state[1]
    root.setLevel(state[2])


def run(work: stage.Stage, result: Path, **env: str) -> ExitCode:
    return stage.run(work, {"IMGSEARCH_LOG_RESULT_FILE": str(result), **env})


def test_a_result_is_left_for_the_controller_and_on_stdout(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda settings, _: {"run": settings.run.id}, result, IMGSEARCH_RUN_ID="r1") == ExitCode.DONE
    assert json.loads(result.read_text()) == {"run": "r1"}
    assert json.loads(capsys.readouterr().out) == {"run": "r1"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a wrong path"), 2),
        (TemporaryError("it is down"), 3),
        (PermanentError("it is broken"), 4),
        (stage.Interrupted(), 143),
        (ZeroDivisionError("division by zero"), 3),
    ],
)
def test_an_error_is_an_exit_code_and_a_sentence(error: Exception, code: int, result: Path) -> None:
    def fail(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
        raise error

    assert run(fail, result) == code
    document = json.loads(result.read_text())
    assert document == {"interrupted": True} if code == 143 else str(error) in document["error"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("IMGSEARCH_SEARCH_PORT", "x"), ("IMGSEARCH_LOG_LEVEL", "LOUD"), ("IMGSEARCH_EMBED_THUMBNAIL_PX", "-1")],
)
def test_a_wrong_setting_ends_before_the_work(
    result: Path, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    assert run(lambda *_: pytest.fail("it ran"), result, **{variable: value}) == ExitCode.USAGE
    assert f"invalid value '{value}' for" in json.loads(capsys.readouterr().out)["error"]


def test_sigterm_is_told_to_the_stage(result: Path) -> None:
    def work(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wait(10)
        raise stage.Interrupted

    assert run(work, result) == ExitCode.INTERRUPTED


@pytest.mark.parametrize("message", ["very ", "sehr schön ", "非常に", '"\n'])
def test_a_long_error_still_fits(result: Path, message: str) -> None:
    def fail(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
        raise PermanentError(message * 5000)

    assert run(fail, result) == ExitCode.PERMANENT
    assert stage.RESULT_LIMIT / 2 < len(result.read_bytes()) <= stage.RESULT_LIMIT
    assert json.loads(result.read_text())["error"].startswith(message)


def test_logs_are_json_lines_with_run_shard_and_pod(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
        logging.getLogger("x").info("embedded %d", 3, extra={"done": 3, "total": 9})
        return {}

    run(work, result, IMGSEARCH_RUN_ID="r1", JOB_COMPLETION_INDEX="7", POD_NAME="demo-r1-embed-7-x4k2p")
    entry = json.loads(capsys.readouterr().err)
    assert {name: entry[name] for name in ("message", "run", "shard", "pod", "done", "total", "level")} == {
        "message": "embedded 3",
        "run": "r1",
        "shard": 7,
        "pod": "demo-r1-embed-7-x4k2p",
        "done": 3,
        "total": 9,
        "level": "info",
    }


def test_outside_of_a_pod_the_log_names_none(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: Settings, stopping: threading.Event) -> Mapping[str, Any]:
        logging.getLogger("x").info("planned")
        return {}

    run(work, result)
    assert "pod" not in json.loads(capsys.readouterr().err)


def test_a_servers_log_names_the_pod(capsys: pytest.CaptureFixture[str]) -> None:
    def serve(settings: Settings) -> ExitCode:
        logging.getLogger("x").info("serving")
        return ExitCode.DONE

    assert stage.main("searcher", {}, ["serve"], {"POD_NAME": "demo-searcher-5d8f"}, serve=serve) == ExitCode.DONE
    assert json.loads(capsys.readouterr().err)["pod"] == "demo-searcher-5d8f"


@pytest.mark.parametrize("env", [{}, {"JOB_COMPLETION_INDEX": "x"}])
def test_a_shard_must_be_named(env: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="JOB_COMPLETION_INDEX"):
        stage.completion_index(env)
