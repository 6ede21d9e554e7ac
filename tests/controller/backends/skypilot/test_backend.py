from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.backends.skypilot.backend import (
    CHECK_SECONDS,
    SkyBackend,
)
from controller.backends.skypilot.placement import MachinePlacement
from controller.gpus.accelerators import Kind
from controller.jobs.state import Phase, Stage
from imgsearch.errors import PermanentError, TemporaryError, UsageError
from imgsearch.settings import RunSettings, Settings, StorageSettings, StoreSettings
from tests.controller.backends.skypilot.embed_jobs import KEY, SETTINGS, Connect, job, wait_for_end, wait_until
from tests.controller.machines import Clock, Machines


def test_each_index_is_a_task_that_knows_its_number_the_run_and_the_credentials(
    backend: SkyBackend, machines: Machines
) -> None:
    program = f"leave(index=index, run=os.environ['IMGSEARCH_RUN_ID'], images=3, key=os.environ['{KEY}'])"
    backend.create(job(backend, program, completions=4, parallelism=2))
    state = wait_for_end(backend)
    assert state.phase is Phase.COMPLETE
    assert state.succeeded == {0, 1, 2, 3}
    assert state.images_done == 12
    assert [state.indexes[index].result for index in range(4)] == [
        {"index": index, "run": "r1", "images": 3, "key": "hush"} for index in range(4)
    ]
    assert sorted(machines.names) == [f"imgsearch-r1-embed-{index}" for index in range(4)]
    assert machines.max_running == 2
    assert machines.running == [], "a machine was not given back"


def test_credentials_are_kept_in_no_file(backend: SkyBackend, tmp_path: Path) -> None:
    backend.create(job(backend, "print('x')"))
    wait_for_end(backend)
    files = [file for file in (tmp_path / "sky").rglob("*") if file.is_file()]
    assert len(files) >= 3
    assert all("hush" not in file.read_text() for file in files)


def test_a_run_that_nobody_moves_on_is_told(connect: Connect, clock: Clock) -> None:
    first = connect()
    first.create(job(first, "wait_for('go')"))
    assert connect().troubles() == []
    for _ in range(10):
        clock.sleep(1)
    (warning,) = connect().troubles()
    assert "run r1 (embed)" in warning


def test_the_same_job_again_is_success_and_another_of_its_name_an_error(
    backend: SkyBackend, machines: Machines
) -> None:
    backend.create(job(backend, ""))
    wait_for_end(backend)
    backend.create(job(backend, ""))
    assert len(machines.names) == 1
    with pytest.raises(PermanentError, match="imgsearch-r1-embed exists with another spec"):
        backend.create(job(backend, "", completions=2))


def test_a_deleted_job_is_gone_with_its_machines(backend: SkyBackend, machines: Machines) -> None:
    backend.create(job(backend, "wait_for('never')", completions=3, parallelism=2))
    wait_until(backend, lambda state: len(machines.running) == 2)
    backend.delete("imgsearch-r1-embed")
    backend.delete("imgsearch-r1-embed")
    assert machines.running == []
    assert backend.jobs("r1") == {}
    assert backend.runs() == []


def test_progress_is_read_from_the_log(backend: SkyBackend, machines_folder: Path) -> None:
    program = """
print(json.dumps({'message': 'embedded', 'done': 40, 'total': 100}), file=sys.stderr)
print('a warning of some library', file=sys.stderr, flush=True)
wait_for('go')
"""
    backend.create(job(backend, program))
    state = wait_until(backend, lambda state: state.images_done == 40)
    assert state.indexes[0].total == 100
    (machines_folder / "go").touch()
    wait_for_end(backend)


def test_the_log_of_an_index_is_that_of_all_its_tries(backend: SkyBackend, machines_folder: Path) -> None:
    program = "t = here / 'tries'; t.open('a').write('x'); print('Käse', t.stat().st_size, flush=True)\n"
    program += "sys.exit(3) if t.stat().st_size < 2 else wait_for('go')"
    backend.create(job(backend, program))
    wait_until(backend, lambda state: "Käse 2" in backend.log("r1", Stage.EMBED, 0))
    while_running = backend.log("r1", Stage.EMBED, 0)
    (machines_folder / "go").touch()
    wait_for_end(backend)
    for text in (while_running, backend.log("r1", Stage.EMBED, 0)):
        assert [line for line in text.splitlines() if "Käse" in line] == ["Käse 1", "Käse 2"]


def test_a_log_that_is_not_there_is_named(backend: SkyBackend) -> None:
    with pytest.raises(UsageError, match="no embed log of shard 7"):
        backend.log("r1", Stage.EMBED, 7)


def test_gpu_hours_are_those_of_all_tries(backend: SkyBackend, machines: Machines, machines_folder: Path) -> None:
    backend.create(job(backend, "wait_for('go')", placement=MachinePlacement((Kind("L4"),))))
    wait_until(backend, lambda state: state.usage.total > 0)
    machines.preempt("imgsearch-r1-embed-0")
    backend.wait(1)
    hours_before = backend.jobs("r1")[Stage.EMBED].usage.total
    assert hours_before == pytest.approx(CHECK_SECONDS / 3600)
    wait_until(backend, lambda state: state.usage.total > hours_before)
    (machines_folder / "go").touch()
    assert wait_for_end(backend).usage.total > hours_before


def test_a_call_returns_what_the_program_says_and_its_machine_goes(
    backend: SkyBackend, machines: Machines, tmp_path: Path
) -> None:
    machines.wait_seconds = 60
    store = Settings(
        run=RunSettings(index="photos"),
        storage=StorageSettings(uri=(tmp_path / "storage").as_uri()),
        store=StoreSettings(url=f"chroma+file://{tmp_path}/chroma"),
    )
    none = {"indexes": [], "lost": [], "left_out": {"indexes": 0, "lost": 0}}
    assert backend.call("searcher", "indexes", store).result == none
    with pytest.raises(UsageError, match="index 'photos'"):
        backend.call("searcher", "rollback", store)
    with pytest.raises(UsageError, match="code 2"):
        backend.call("searcher", "no-such-verb", store)
    assert machines.running == []


def test_a_call_gives_the_document_that_a_program_prints_before_its_result(
    backend: SkyBackend, machines: Machines, tmp_path: Path
) -> None:
    machines.wait_seconds = 60
    bad_list = tmp_path / "runs" / "r1" / "bad.csv"
    bad_list.parent.mkdir(parents=True)
    csv = "key,stage,reason\r\nKäse [1].jpg,decode,truncated\r\n"
    bad_list.write_bytes(csv.encode())
    settings = Settings.from_env({"IMGSEARCH_RUN_ID": "r1", "IMGSEARCH_STORAGE_URI": tmp_path.as_uri()})
    output = backend.call("searcher", "bad", settings)
    assert output.document() == csv
    assert output.result["run"] == "r1"


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [({"unavailable": "no CPU anywhere"}, TemporaryError), ({"refusal": "no cloud"}, PermanentError)],
)
def test_a_call_without_a_machine_says_why(
    backend: SkyBackend, machines: Machines, fault: dict[str, str], error_type: type[Exception]
) -> None:
    ((name, reason),) = fault.items()
    setattr(machines, name, reason)
    with pytest.raises(error_type, match=reason):
        backend.call("searcher", "indexes", SETTINGS)


def test_a_queue_of_kueue_is_refused(backend: SkyBackend) -> None:
    backend.check(job(backend, ""))
    with pytest.raises(UsageError, match="Kueue"):
        backend.check(job(backend, "", queue="gpus"))


def test_runs_are_known_by_their_jobs(backend: SkyBackend) -> None:
    assert backend.runs() == []
    backend.create(job(backend, ""))
    assert backend.runs() == ["r1"]
    assert os.listdir(backend._jobs) == ["imgsearch-r1-embed"]
