"""Starts, retries and ends of tasks: whatever becomes of machines, clouds and controllers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.backends.skypilot.backend import (
    SKY_RELEASE,
    SkyBackend,
)
from controller.backends.skypilot.reconciler import SILENT_SECONDS
from controller.jobs.results import UNKNOWN_ERROR
from controller.jobs.state import Phase, Stage
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from controller.run.steps import Failed
from imgsearch import labels
from imgsearch.errors import TemporaryError
from imgsearch.settings import StoreSettings
from tests.controller.backends.skypilot.embed_jobs import SETTINGS, Connect, job, wait_for_end, wait_until
from tests.controller.machines import Clock, Machines


def test_of_a_job_only_the_indexes_that_were_taken_run_each_once(backend: SkyBackend, machines: Machines) -> None:
    overflowing_job = job(backend, "leave(images=1)", completions=9, parallelism=4)
    overflowing_job["metadata"]["annotations"][labels.OVERFLOW_OF] = "uid-1"
    backend.take(overflowing_job, [7])
    backend.take(overflowing_job, [7, 5])
    assert sorted(machines.names) == ["imgsearch-r1-embed-5", "imgsearch-r1-embed-7"]
    wait_until(backend, lambda state: state.succeeded == {5, 7})
    for _ in range(5):
        backend.wait(1)
    assert backend.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE, "the others are somebody else's"
    assert len(machines.names) == 2
    assert backend.taken("r1", "uid-2") is None


def test_what_a_retry_may_mend_is_retried_on_another_machine(
    backend: SkyBackend, machines: Machines, machines_folder: Path
) -> None:
    program = "t = here / 'tries'; t.open('a').write('x'); sys.exit(0 if t.stat().st_size > 1 else 3)"
    backend.create(job(backend, program, retries=1))
    assert wait_for_end(backend).phase is Phase.COMPLETE
    assert machines.names == ["imgsearch-r1-embed-0"] * 2


def test_retries_come_to_an_end_and_the_sentence_stays(backend: SkyBackend, machines: Machines) -> None:
    backend.create(job(backend, "leave(error='no space left'); sys.exit(3)", retries=2))
    state = wait_for_end(backend)
    assert state.phase is Phase.FAILED
    assert state.errors() == {0: "no space left"}
    assert len(machines.names) == 3


@pytest.mark.parametrize("code", [2, 4])
def test_what_no_retry_can_mend_is_not_retried_and_the_other_shards_finish(
    backend: SkyBackend, machines: Machines, code: int
) -> None:
    program = f"index or (leave(error='the shard is broken'), sys.exit({code}))"
    backend.create(job(backend, program, completions=3, retries=5))
    state = wait_for_end(backend)
    assert (state.failed, state.succeeded) == ({0}, {1, 2})
    assert state.errors() == {0: "the shard is broken"}
    assert machines.names.count("imgsearch-r1-embed-0") == 1


def test_a_machine_that_is_taken_away_uses_up_no_retry(
    backend: SkyBackend, machines: Machines, machines_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend.create(job(backend, "wait_for('go'); leave(images=1)", retries=0))
    for _ in range(3):
        wait_until(backend, lambda state: bool(machines.running) and not state.waiting_since)
        machines.preempt("imgsearch-r1-embed-0")
        backend.wait(1)
    (machines_folder / "go").touch()
    assert wait_for_end(backend).phase is Phase.COMPLETE
    assert machines.names == ["imgsearch-r1-embed-0"] * 4
    assert "was lost" in caplog.text


def test_the_next_try_waits_until_the_machine_of_the_one_before_is_gone(
    backend: SkyBackend, machines: Machines
) -> None:
    machines.keeps_returned = True
    backend.create(job(backend, "sys.exit(3)", retries=1))
    wait_until(backend, lambda state: len(machines.returned) > 2)
    assert machines.names == ["imgsearch-r1-embed-0"]
    machines.keeps_returned = False
    assert wait_for_end(backend).phase is Phase.FAILED
    assert machines.names == ["imgsearch-r1-embed-0"] * 2


def test_a_program_that_is_killed_is_said_to_have_been(backend: SkyBackend) -> None:
    backend.create(job(backend, "print('half a line', end='', flush=True); os.kill(os.getpid(), 9)", retries=0))
    assert "out of memory" in wait_for_end(backend).errors()[0]


def test_a_task_that_ends_without_a_word_is_a_failure(backend: SkyBackend) -> None:
    backend.create(job(backend, "os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)", retries=0))
    assert wait_for_end(backend).errors() == {0: UNKNOWN_ERROR}


def test_without_a_machine_it_waits_and_says_why_and_since_when(
    backend: SkyBackend, machines: Machines, clock: Clock
) -> None:
    machines.unavailable = "no L4 in any region"
    start_time = clock.now()
    backend.create(job(backend, "", completions=2, parallelism=2))
    wait_until(backend, lambda _: len(machines.names) > 4)  # it is asked for again and again
    state = backend.jobs("r1")[Stage.EMBED]
    assert state.waiting == {"no L4 in any region": 2}
    assert state.waiting_since == start_time.isoformat(timespec="seconds")
    machines.unavailable = ""
    state = wait_for_end(backend)
    assert (state.phase, state.waiting, state.waiting_since) == (Phase.COMPLETE, {}, "")


def test_a_machine_is_not_asked_for_with_every_look(backend: SkyBackend, machines: Machines) -> None:
    machines.unavailable = "no L4 in any region"
    backend.create(job(backend, ""))
    for _ in range(3):
        backend.wait(1)
    assert len(machines.names) == 1


def test_a_run_without_capacity_is_given_up_and_asks_for_no_machine_any_more(
    backend: SkyBackend, machines: Machines, clock: Clock
) -> None:
    machines.booting = True
    settings = replace(SETTINGS, store=StoreSettings(url="chroma+http://x:1"))
    capacity = Capacity(1, wait_seconds=120, now=clock.now)
    pipeline = Pipeline(backend, settings, release=SKY_RELEASE, capacity=capacity, show=lambda _: None)
    outcome, _ = pipeline.run()
    assert outcome == Failed(Stage.PLAN, "no node had room within 120 s (it boots)")
    assert machines.running == []
    assert backend.jobs("r1") == {}


def test_what_no_place_can_ever_have_fails_at_once(backend: SkyBackend, machines: Machines) -> None:
    machines.refusal = "no cloud has a FOO"
    backend.create(job(backend, "", retries=5))
    state = wait_for_end(backend)
    assert state.errors() == {0: "no cloud has a FOO"}
    assert len(machines.names) == 1


def test_a_stage_that_takes_longer_than_its_deadline_is_ended(backend: SkyBackend, machines: Machines) -> None:
    backend.create(job(backend, "wait_for('never')", completions=2, deadline_seconds=60))
    state = wait_for_end(backend)
    assert state.phase is Phase.FAILED
    assert state.errors() == dict.fromkeys(range(2), "deadline exceeded: 60 s")
    assert machines.running == []


def test_a_silence_of_skypilot_is_waited_out(
    backend: SkyBackend, machines: Machines, machines_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend.create(job(backend, "wait_for('go')"))
    machines.unreachable = True
    for _ in range(5):
        backend.wait(1)
    (machines_folder / "go").touch()
    machines.unreachable = False
    assert wait_for_end(backend).phase is Phase.COMPLETE
    assert len(machines.names) == 1
    assert "does not answer" in caplog.text


def test_a_silence_that_is_too_long_is_an_error(backend: SkyBackend, machines: Machines, clock: Clock) -> None:
    backend.create(job(backend, "wait_for('go')"))
    start_time = clock.now()
    machines.unreachable = True
    with pytest.raises(TemporaryError, match="does not answer"):
        wait_until(backend, lambda _: False)
    assert (clock.now() - start_time).total_seconds() >= SILENT_SECONDS


def test_a_controller_that_comes_later_goes_on_with_the_same_machines(
    connect: Connect, machines: Machines, machines_folder: Path
) -> None:
    first = connect()
    first.create(job(first, "wait_for('go'); leave(images=1)", completions=3, parallelism=2))
    (machines_folder / "go").touch()
    assert wait_for_end(connect()).images_done == 3
    assert sorted(machines.names) == [f"imgsearch-r1-embed-{index}" for index in range(3)]


def test_a_try_of_which_nobody_knows_whether_it_began_is_begun(
    connect: Connect, machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    first = connect()
    machines.unreachable = True  # as if it were killed between its note and its request
    first.create(job(first, "leave(images=1)"))
    machines.unreachable = False
    assert wait_for_end(connect()).phase is Phase.COMPLETE
    assert machines.names == ["imgsearch-r1-embed-0"]


def test_two_controllers_at_once_make_nothing_twice(connect: Connect, machines: Machines) -> None:
    first, second = connect(), connect()
    first.create(job(first, "leave(images=1)", completions=4, parallelism=2))
    second.create(job(second, "leave(images=1)", completions=4, parallelism=2))
    while first.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE:
        first.wait(1)
        second.jobs("r1")
        second.wait(1)
    assert sorted(machines.names) == [f"imgsearch-r1-embed-{index}" for index in range(4)]
    assert machines.max_running == 2


def test_clouds_are_asked_now_and_then_however_many_wait(connect: Connect, machines: Machines) -> None:
    first, second = connect(), connect()
    first.create(job(first, "wait_for('go')"))
    second.jobs("r1")
    second.wait(1)  # it was looked at just now, and the clock goes on with each sleep
    assert machines.state_calls == 0
    first.wait(1)
    assert machines.state_calls == 1


def test_who_only_looks_moves_nothing(connect: Connect, machines: Machines) -> None:
    connect().create(job(connect(), "", completions=2))
    reader = connect()
    for _ in range(5):
        reader.jobs("r1")
    assert len(machines.names) == 1
