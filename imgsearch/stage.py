"""A stage of the pipeline as a process: settings in, a result for the controller out, an exit code that says what next.

The result is JSON of under 4 KiB in the termination message (the protocol of a Kubernetes container:
https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/), and on stdout for a person.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from imgsearch import logs
from imgsearch.errors import ExitCode, ImgsearchError, UsageError
from imgsearch.settings import Settings

log = logging.getLogger(__name__)

RESULT_LIMIT = 4096


class Interrupted(Exception):
    """SIGTERM came and what was in hand is written; the same command goes on from here."""


Stage = Callable[[Settings, threading.Event], Mapping[str, Any]]
"""Does the stage's work; stops soon, by raising Interrupted, once the event is set."""


Server = Callable[[Settings], ExitCode]
"""A program that answers until it is stopped, and handles SIGTERM by itself."""


def main(
    program: str, stages: Mapping[str, Stage], argv: list[str], env: Mapping[str, str], *, serve: Server | None = None
) -> ExitCode:
    """`python -m PROGRAM STAGE`: runs the stage that `argv` names, or the server where the program has one."""
    verbs = [*stages, "serve"] if serve else [*stages]
    if len(argv) != 1 or argv[0] not in verbs:
        print(
            f"usage: python -m {program} {'|'.join(verbs)}  (settings come from IMGSEARCH_* variables)", file=sys.stderr
        )
        return ExitCode.USAGE
    if argv[0] in stages:
        return run(stages[argv[0]], env)
    assert serve is not None
    return answer(serve, env)


def run(stage: Stage, env: Mapping[str, str]) -> ExitCode:
    """Runs a stage with the settings of `env`; the one place that turns errors into exit codes."""
    settings = Settings()
    try:
        settings = Settings.from_env(env)
        index = env.get("JOB_COMPLETION_INDEX")
        shard = {} if index is None else {"shard": int(index)}
        logs.configure(settings.log, run=settings.run.id, **shard, **_pod(env))
        stopping = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        result, code = dict(stage(settings, stopping)), ExitCode.DONE
    except Interrupted:
        log.info("stopped by SIGTERM; what was in hand is written")
        result, code = {"interrupted": True}, ExitCode.INTERRUPTED
    except ImgsearchError as error:
        log.error("%s", error)
        result, code = {"error": str(error)}, error.exit_code
    except Exception as error:  # a defect of ours or of a library: its traceback is for the log, and a retry may help
        log.exception("unexpected failure")
        result, code = {"error": f"{type(error).__name__}: {error}"}, ExitCode.TEMPORARY
    _leave(result, settings.log.result_file)
    return code


def answer(server: Server, env: Mapping[str, str]) -> ExitCode:
    """Runs a server with the settings of `env`; its errors are for a person."""
    try:
        settings = Settings.from_env(env)
        logs.configure(settings.log, **_pod(env))
        return server(settings)
    except ImgsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def completion_index(env: Mapping[str, str]) -> int:
    """Which shard this process of an Indexed Job works on; raises UsageError where it is not said."""
    try:
        return int(env["JOB_COMPLETION_INDEX"])
    except (KeyError, ValueError):
        raise UsageError("JOB_COMPLETION_INDEX must say which shard to embed, counted from 0") from None


def size(result: Mapping[str, Any]) -> int:
    """How many bytes of RESULT_LIMIT a result takes."""
    return len(_text(result).encode())


def _pod(env: Mapping[str, str]) -> dict[str, str]:
    """In which pod this is, for the log; nothing outside of a cluster."""
    return {"pod": env["POD_NAME"]} if "POD_NAME" in env else {}


def _text(result: Mapping[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False)


def _leave(result: dict[str, Any], file: str) -> None:
    while "error" in result and size(result) > RESULT_LIMIT:
        result["error"] = result["error"][: len(result["error"]) * 3 // 4]
    if size(result) > RESULT_LIMIT:
        raise ValueError(f"a stage's result must stay under {RESULT_LIMIT} bytes, this one has {size(result)}")
    text = _text(result)
    print(text, flush=True)
    try:
        with open(file, "w", encoding="utf-8") as sink:
            sink.write(text)
    except OSError:  # run by hand, outside a container: stdout has it
        log.debug("no termination message at %s", file)
