from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.backends.local import LOCAL_RELEASE, LocalBackend
from controller.backends.processes import CONTROLLER_ENDED
from controller.jobs import manifests
from controller.jobs.results import Output
from controller.jobs.state import JobState, Phase, Stage
from imgsearch.errors import PermanentError, TemporaryError, UsageError
from imgsearch.settings import RunSettings, Settings, StorageSettings

SETTINGS = Settings(run=RunSettings(id="r1", index="photos", source="/photos", model="a/b"))


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(tmp_path, env=os.environ)
    yield backend
    backend.close()


def job(program: str, *, completions: int = 1, parallelism: int = 1, retries: int = 0) -> dict[str, Any]:
    """A Job whose indexes run a Python program."""
    template = {"spec": {"containers": [{"name": "embed", "command": [sys.executable, "-c", PREAMBLE + program]}]}}
    manifest = manifests.job(
        Stage.EMBED, SETTINGS, template, release=LOCAL_RELEASE, completions=completions, parallelism=parallelism
    )
    manifest["spec"]["backoffLimitPerIndex"] = retries
    return manifest


PREAMBLE = """
import json, os, pathlib, signal, sys, time
index = int(os.environ["JOB_COMPLETION_INDEX"])
result = pathlib.Path(os.environ["IMGSEARCH_LOG_RESULT_FILE"])
here = result.parent
def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.01)
"""


def wait_for_end(backend: LocalBackend) -> JobState:
    return wait_until(backend, lambda state: state.phase is not Phase.ACTIVE)


def wait_until(backend: LocalBackend, predicate: Callable[[JobState], bool]) -> JobState:
    while not predicate(state := backend.jobs("r1")[Stage.EMBED]):
        backend.wait(0.1)
    return state


def test_each_index_is_a_process_that_knows_its_number_and_settings(backend: LocalBackend) -> None:
    program = "result.write_text(json.dumps({'index': index, 'run': os.environ['IMGSEARCH_RUN_ID'], 'images': 3}))"
    backend.create(job(program, completions=4, parallelism=2))
    state = wait_for_end(backend)
    assert state.phase is Phase.COMPLETE
    assert state.succeeded == {0, 1, 2, 3}
    assert state.images_done == 12
    assert [state.indexes[index].result for index in range(4)] == [
        {"index": index, "run": "r1", "images": 3} for index in range(4)
    ]


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.COMPLETE), (4, Phase.FAILED)])
def test_an_init_container_runs_first_and_its_failure_is_that_of_the_index(
    backend: LocalBackend, tmp_path: Path, code: int, phase: Phase
) -> None:
    manifest = job("result.write_text(json.dumps({'images': 3, 'after': (here / 'first').exists()}))", retries=2)
    init = f"(here / 'first').touch(); result.write_text(json.dumps({{'error': 'no model'}})); sys.exit({code})"
    pod = manifest["spec"]["template"]["spec"]
    pod["initContainers"] = [{**pod["containers"][0], "command": [sys.executable, "-c", PREAMBLE + init]}]
    backend.create(manifest)
    state = wait_for_end(backend)
    assert state.phase is phase
    assert state.indexes[0].result == ({"images": 3, "after": True} if code == 0 else {"error": "no model"})


def test_a_program_that_is_killed_has_no_result_of_the_init_container(backend: LocalBackend) -> None:
    manifest = job("os.kill(os.getpid(), signal.SIGKILL)")
    init = "result.write_text(json.dumps({'model': 'a/b', 'seconds': 1.5}))"
    pod = manifest["spec"]["template"]["spec"]
    pod["initContainers"] = [{**pod["containers"][0], "command": [sys.executable, "-c", PREAMBLE + init]}]
    backend.create(manifest)
    assert wait_for_end(backend).errors() == {0: "killed (SIGKILL): probably out of memory"}


def test_a_plan_loads_the_model_first(backend: LocalBackend) -> None:
    pod = backend.template(Stage.PLAN)["spec"]
    commands = [container["command"][2:] for container in [*pod["initContainers"], *pod["containers"]]]
    assert commands == [["embedder", "model"], ["embedder", "plan"]]
    assert "initContainers" not in backend.template(Stage.EMBED)["spec"]


def test_the_job_file_is_what_a_cluster_would_keep(backend: LocalBackend, tmp_path: Path) -> None:
    backend.create(job("", completions=3))
    wait_for_end(backend)
    document = json.loads((tmp_path / "jobs" / "local-r1-embed" / "job.json").read_text())
    assert document["kind"] == "Job"
    assert document["status"]["completedIndexes"] == "0-2"
    assert document["status"]["conditions"][0]["type"] == "Complete"


def test_parallelism_is_kept(backend: LocalBackend) -> None:
    program = "(here / f'up-{index}').touch(); wait_for('go')"
    backend.create(job(program, completions=3, parallelism=2))
    state = wait_until(backend, lambda state: state.active == 2 and {0, 1} <= state.indexes.keys())
    assert 2 not in state.indexes
    (backend._jobs / "local-r1-embed" / "go").touch()
    assert wait_for_end(backend).phase is Phase.COMPLETE


def test_what_a_retry_may_mend_is_retried(backend: LocalBackend) -> None:
    program = "tries = here / 'tries'; tries.open('a').write('x'); sys.exit(0 if tries.stat().st_size > 1 else 3)"
    backend.create(job(program, retries=1))
    assert wait_for_end(backend).phase is Phase.COMPLETE


def test_a_process_that_is_killed_is_started_again(backend: LocalBackend) -> None:
    program = "tries = here / 'tries'; tries.open('a').write('x')\nif tries.stat().st_size < 2: os.kill(os.getpid(), 9)"
    backend.create(job(program, retries=1))
    assert wait_for_end(backend).phase is Phase.COMPLETE


@pytest.mark.parametrize("code", [2, 4])
def test_what_no_retry_can_mend_is_not_retried_and_the_other_shards_finish(backend: LocalBackend, code: int) -> None:
    program = f"""
(here / f'tries-{{index}}').open('a').write('x')
if index == 0:
    result.write_text(json.dumps({{'error': 'the shard is broken'}}))
    sys.exit({code})
"""
    backend.create(job(program, completions=3, retries=5))
    state = wait_for_end(backend)
    assert state.phase is Phase.FAILED
    assert state.failed == {0}
    assert state.succeeded == {1, 2}
    assert state.errors() == {0: "the shard is broken"}
    assert (backend._jobs / "local-r1-embed" / "tries-0").stat().st_size == 1


def test_a_process_that_dies_without_a_word_is_said_to_have_been_killed(backend: LocalBackend) -> None:
    backend.create(job("os.kill(os.getpid(), 9)"))
    assert "SIGKILL" in wait_for_end(backend).errors()[0]


def test_progress_is_read_from_the_log(backend: LocalBackend) -> None:
    program = """
print(json.dumps({'message': 'embedded', 'done': 40, 'total': 100}), file=sys.stderr)
print('a warning of some library', file=sys.stderr, flush=True)
wait_for('go')
"""
    backend.create(job(program))
    state = wait_until(backend, lambda state: state.images_done == 40)
    assert state.indexes[0].total == 100
    (backend._jobs / "local-r1-embed" / "go").touch()
    wait_for_end(backend)


def test_the_same_job_again_is_success_and_another_of_its_name_an_error(backend: LocalBackend) -> None:
    backend.create(job(""))
    wait_for_end(backend)
    backend.create(job(""))
    with pytest.raises(PermanentError, match="local-r1-embed exists with another spec"):
        backend.create(job("", completions=2))


def test_stopping_asks_the_processes_to_end_in_order(backend: LocalBackend) -> None:
    program = """
signal.signal(signal.SIGTERM, lambda *_: ((here / 'flushed').touch(), sys.exit(143)))
(here / 'ready').touch()
time.sleep(600)
"""
    backend.create(job(program, completions=2))
    folder = backend._jobs / "local-r1-embed"
    wait_until(backend, lambda state: (folder / "ready").exists())
    backend.close()
    assert (folder / "flushed").exists()
    state = backend.jobs("r1")[Stage.EMBED]
    assert state.phase is Phase.FAILED
    assert state.reason == CONTROLLER_ENDED
    assert 1 not in state.indexes, "a process was started while stopping"


def test_a_deleted_job_is_gone_with_its_processes(backend: LocalBackend) -> None:
    backend.create(job("(here / str(os.getpid())).touch(); time.sleep(600)"))
    folder = backend._jobs / "local-r1-embed"
    wait_until(backend, lambda state: any(name.isdigit() for name in os.listdir(folder)))
    pid = next(int(name) for name in os.listdir(folder) if name.isdigit())
    backend.delete("local-r1-embed")
    backend.delete("local-r1-embed")
    assert backend.jobs("r1") == {}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


ORPHANING = """
import os, sys, json, pathlib
sys.path.insert(0, {root!r})
from controller.backends.local import LocalBackend
backend = LocalBackend(pathlib.Path({home!r}), env=os.environ)
backend.create(json.loads({job!r}))
while not (pathlib.Path({home!r}) / "jobs/local-r1-embed/ready").exists():
    backend.wait(0.05)
os.kill(os.getpid(), 9)
"""


def test_after_a_killed_controller_its_processes_are_waited_for(backend: LocalBackend, tmp_path: Path) -> None:
    orphan = job("(here / 'ready').touch(); wait_for('go')")
    root = str(Path(__file__).resolve().parents[3])
    program = ORPHANING.format(root=root, home=str(tmp_path), job=json.dumps(orphan))
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert backend.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE
    (tmp_path / "jobs" / "local-r1-embed" / "go").touch()
    state = wait_for_end(backend)
    assert state.phase is Phase.FAILED
    assert state.reason == CONTROLLER_ENDED


def test_two_runs_at_once_do_not_meet(backend: LocalBackend) -> None:
    other_job = manifests.job(
        Stage.EMBED,
        Settings(run=RunSettings(id="r2", index="photos", source="/other", model="a/b")),
        {"spec": {"containers": [{"name": "embed", "command": ["true"]}]}},
        release=LOCAL_RELEASE,
        completions=1,
        parallelism=1,
    )
    backend.create(job(""))
    backend.create(other_job)
    wait_for_end(backend)
    assert set(backend.runs()) == {"r1", "r2"}


def test_a_call_returns_the_programs_result_or_raises_its_error(backend: LocalBackend, tmp_path: Path) -> None:
    store = Settings(
        run=RunSettings(index="photos"),
        storage=StorageSettings(uri=(tmp_path / "storage").as_uri()),
        store=type(SETTINGS.store)(url=f"chroma+file://{tmp_path}/chroma"),
    )
    none = {"indexes": [], "lost": [], "left_out": {"indexes": 0, "lost": 0}}
    assert backend.call("searcher", "indexes", store) == Output(none, "")
    with pytest.raises(UsageError, match="index 'photos'"):
        backend.call("searcher", "rollback", store)
    with pytest.raises(TemporaryError, match="code 2"):
        backend.call("searcher", "no-such-verb", store)


def test_a_call_gives_the_document_that_a_program_prints_before_its_result(
    backend: LocalBackend, tmp_path: Path
) -> None:
    settings = Settings(run=RunSettings(id="r1"), storage=StorageSettings(uri=tmp_path.as_uri()))
    bad_list = tmp_path / "runs" / "r1" / "bad.csv"
    bad_list.parent.mkdir(parents=True)
    csv = "key,stage,reason\r\nKäse [1].jpg,decode,truncated\r\n"
    bad_list.write_bytes(csv.encode())
    output = backend.call("searcher", "bad", settings)
    assert output.document() == csv
    assert output.result["run"] == "r1"


def test_the_log_of_an_index_is_what_its_process_wrote(backend: LocalBackend) -> None:
    backend.create(job("print('Käse', index, file=sys.stderr)", completions=2))
    wait_for_end(backend)
    assert backend.log("r1", Stage.EMBED, 1) == "Käse 1\n"


def test_a_log_that_is_not_there_is_named(backend: LocalBackend) -> None:
    with pytest.raises(UsageError, match="no embed log of shard 7"):
        backend.log("r1", Stage.EMBED, 7)


def test_waiting_ends_with_the_change(backend: LocalBackend) -> None:
    thread = threading.Thread(target=backend.wait, args=(600,))
    thread.start()
    backend.create(job(""))
    thread.join(60)
    assert not thread.is_alive()
    wait_for_end(backend)
