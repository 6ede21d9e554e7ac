"""One stage of the pipeline as a process: it reads settings, writes a result for the controller, and ends with an
exit code.

The result is JSON of under 4 KiB in the termination message (the protocol of a Kubernetes container:
https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/), and on stdout for a person.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from imgsearch import logs
from imgsearch.errors import FULL_DISK, ExitCode, ImgsearchError, UsageError, os_reason
from imgsearch.escapes import to_json, visible
from imgsearch.settings import Settings

log = logging.getLogger(__name__)

RESULT_LIMIT = 4096


class Interrupted(Exception):
    """Stopped by SIGTERM after the current part was written. The same command resumes."""


def check_stopping(stopping: threading.Event) -> None:
    """Raises Interrupted if the event is set."""
    if stopping.is_set():
        raise Interrupted


Stage = Callable[[Settings, threading.Event], Mapping[str, Any]]
"""Does the work of the stage. Raises Interrupted soon after the event is set."""


Server = Callable[[Settings], ExitCode]
"""A program that runs until it is stopped, and handles SIGTERM itself."""


def main(
    program: str, stages: Mapping[str, Stage], argv: list[str], env: Mapping[str, str], *, serve: Server | None = None
) -> ExitCode:
    """`python -m PROGRAM STAGE`: runs the stage in `argv`, or the server if the program has one."""
    verbs = [*stages, "serve"] if serve else [*stages]
    if len(argv) != 1 or argv[0] not in verbs:
        print(
            f"usage: python -m {program} {'|'.join(verbs)}  (settings come from IMGSEARCH_* variables)", file=sys.stderr
        )
        return ExitCode.USAGE
    if argv[0] in stages:
        return run(stages[argv[0]], env)
    assert serve is not None
    return run_server(serve, env)


def run(stage: Stage, env: Mapping[str, str]) -> ExitCode:
    """Runs a stage with the settings of `env`. Only here errors become exit codes."""
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
        log.info("stopped by SIGTERM; the current part is written")
        result, code = {"interrupted": True}, ExitCode.INTERRUPTED
    except ImgsearchError as error:
        log.error("%s", error)
        result, code = {"error": str(error)}, error.exit_code
    except OSError as error:
        log.exception("unexpected failure")
        full = error.errno in FULL_DISK
        result, code = {"error": os_reason(error)}, ExitCode.PERMANENT if full else ExitCode.TEMPORARY
    except Exception as error:  # a bug, or an error of a library: log the traceback, and let the Job retry
        log.exception("unexpected failure")
        result, code = {"error": f"{type(error).__name__}: {error}"}, ExitCode.TEMPORARY
    _write(result, settings.log.result_file)
    return code


def run_server(server: Server, env: Mapping[str, str]) -> ExitCode:
    """Runs a server with the settings of `env`. Its errors go to stderr."""
    try:
        settings = Settings.from_env(env)
        logs.configure(settings.log, **_pod(env))
        return server(settings)
    except ImgsearchError as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        return error.exit_code


def completion_index(env: Mapping[str, str]) -> int:
    """The shard of this process in an Indexed Job; raises UsageError if it is not set."""
    try:
        return int(env["JOB_COMPLETION_INDEX"])
    except (KeyError, ValueError):
        raise UsageError("set JOB_COMPLETION_INDEX to the number of the shard to embed, from 0") from None


def size(result: Mapping[str, Any]) -> int:
    """The size of a result in bytes; RESULT_LIMIT is the most."""
    return len(_text(result).encode())


def _pod(env: Mapping[str, str]) -> dict[str, str]:
    """The name of this pod for the log; empty outside a cluster."""
    return {"pod": env["POD_NAME"]} if "POD_NAME" in env else {}


def _text(result: Mapping[str, Any]) -> str:
    return to_json(result)


def _write(result: dict[str, Any], file: str) -> None:
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
