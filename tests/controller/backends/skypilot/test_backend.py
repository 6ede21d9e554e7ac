from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.backends.skypilot.backend import (
    CHECK_SECONDS,
    PYTHON,
    SKY_RELEASE,
    SkyBackend,
)
from controller.backends.skypilot.placement import MachinePlacement
from controller.backends.skypilot.reconciler import PATIENCE_SECONDS
from controller.backends.skypilot.taskfiles import TASKS, read_settings
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import Spot
from controller.jobs import manifests
from controller.jobs.results import UNKNOWN_ERROR
from controller.jobs.state import JobState, Phase, Stage
from controller.jobs.usage import Gpu
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from controller.run.steps import Failed
from imgsearch import labels
from imgsearch.errors import PermanentError, TemporaryError, UsageError
from imgsearch.settings import JobSettings, RunSettings, Settings, StoreSettings
from tests.controller.machines import PREAMBLE, Clock, Machines

SETTINGS = Settings(run=RunSettings(id="r1", index="photos", source="s3://photos", model="a/b"))
KEY = "AWS_SECRET_ACCESS_KEY"
Made = Callable[..., SkyBackend]


@pytest.fixture
def clock(machines: Machines) -> Clock:
    return Clock(machines)


@pytest.fixture
def connected(tmp_path: Path, machines: Machines, clock: Clock) -> Made:
    def make(**told: Any) -> SkyBackend:
        env = {KEY: "hush", "IMGSEARCH_RUN_MODEL": "a/b"}
        return SkyBackend(tmp_path, machines, **{"env": env, "now": clock.now, "sleep": clock.sleep, **told})

    return make


@pytest.fixture
def cluster(connected: Made) -> SkyBackend:
    return connected()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """What all machines can see."""
    return tmp_path / "machines"


def job(
    cluster: SkyBackend,
    program: str,
    *,
    completions: int = 1,
    parallelism: int = 1,
    placement: MachinePlacement = MachinePlacement(),  # noqa: B008 (it is frozen)
    **about: Any,
) -> dict[str, Any]:
    """The embed Job, its indexes running a Python program."""
    template = json.loads(json.dumps(placement.applied(cluster.template(Stage.EMBED))))
    script = f"{PYTHON} - <<'END'\n{PREAMBLE}{program}\nEND"
    template["spec"]["containers"][0]["command"] = ["bash", "-c", script]
    settings = replace(SETTINGS, jobs=JobSettings(**about))
    return manifests.job(
        Stage.EMBED, settings, template, release=SKY_RELEASE, completions=completions, parallelism=parallelism
    )


def until(cluster: SkyBackend, met: Callable[[JobState], bool]) -> JobState:
    while not met(state := cluster.jobs("r1")[Stage.EMBED]):
        cluster.wait(1)
    return state


def ended(cluster: SkyBackend) -> JobState:
    return until(cluster, lambda state: state.phase is not Phase.ACTIVE)


def test_each_index_is_a_task_that_knows_its_number_the_run_and_the_credentials(
    cluster: SkyBackend, machines: Machines
) -> None:
    program = f"leave(index=index, run=os.environ['IMGSEARCH_RUN_ID'], images=3, key=os.environ['{KEY}'])"
    cluster.create(job(cluster, program, completions=4, parallelism=2))
    state = ended(cluster)
    assert state.phase is Phase.COMPLETE
    assert state.succeeded == {0, 1, 2, 3}
    assert state.images_done == 12
    assert [state.indexes[index].result for index in range(4)] == [
        {"index": index, "run": "r1", "images": 3, "key": "hush"} for index in range(4)
    ]
    assert sorted(machines.names) == [f"imgsearch-r1-embed-{index}" for index in range(4)]
    assert machines.most == 2
    assert machines.there == [], "a machine was not given back"


def test_credentials_are_kept_in_no_file(cluster: SkyBackend, tmp_path: Path) -> None:
    cluster.create(job(cluster, "print('x')"))
    ended(cluster)
    files = [file for file in (tmp_path / "sky").rglob("*") if file.is_file()]
    assert len(files) >= 3
    assert all("hush" not in file.read_text() for file in files)


def test_a_task_is_what_its_file_says(cluster: SkyBackend, machines: Machines) -> None:
    cluster.create(job(cluster, ""))
    ended(cluster)
    theirs = yaml.safe_load((TASKS / "embed.yaml").read_text())
    _, ours = machines.submitted[0]
    assert {name: ours[name] for name in ("name", "resources", "config")} == {
        name: theirs[name] for name in ("name", "resources", "config")
    }


def test_gpus_and_spot_machines_may_be_chosen_for_embedding_alone(cluster: SkyBackend) -> None:
    placement = MachinePlacement((Kind("L4", 2), Kind("A10G", 2)), Spot.PREFER)
    pods = {
        stage: manifests.job(
            stage,
            SETTINGS,
            cluster.template(stage),
            release=SKY_RELEASE,
            completions=1,
            parallelism=1,
            placement=placement,
        )["spec"]["template"]
        for stage in Stage
    }
    resources = json.loads(pods[Stage.EMBED]["metadata"]["annotations"]["imgsearch.dev/sky-task"])["resources"]
    assert resources["any_of"] == [
        {"accelerators": "L4:2", "use_spot": True},
        {"accelerators": "A10G:2", "use_spot": True},
        {"accelerators": "L4:2", "use_spot": False},
        {"accelerators": "A10G:2", "use_spot": False},
    ]
    limits = pods[Stage.EMBED]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "2"}
    assert pods[Stage.PLAN]["spec"]["containers"][0]["resources"] == {}
    assert yaml.safe_load(yaml.safe_dump(pods[Stage.EMBED])) == pods[Stage.EMBED], "--dry-run prints it"


@pytest.mark.parametrize(("spot", "told"), [(Spot.ONLY, "only"), (Spot.NEVER, "never"), (Spot.PREFER, "prefer")])
def test_one_kind_of_gpu_is_known_for_the_cost_of_the_run(
    cluster: SkyBackend, tmp_path: Path, spot: Spot, told: str
) -> None:
    cluster.create(job(cluster, "", placement=MachinePlacement((Kind("L4", 1),), spot)))
    (stored,) = (tmp_path / "sky").glob("*/job.json")
    annotations = json.loads(stored.read_text())["spec"]["template"]["metadata"]["annotations"]
    assert annotations[labels.SPOT] == told
    requested = cluster.jobs("r1")[Stage.EMBED].usage.requested
    assert requested == Gpu("L4", {"only": True, "never": False}.get(told))


def test_of_several_kinds_none_is_told(cluster: SkyBackend) -> None:
    cluster.create(job(cluster, ""))  # of embed.yaml
    assert cluster.jobs("r1")[Stage.EMBED].usage.requested.accelerator == ""


def test_a_choice_of_spot_leaves_the_gpus_of_the_file(cluster: SkyBackend) -> None:
    theirs = yaml.safe_load((TASKS / "embed.yaml").read_text())["resources"]
    template = MachinePlacement(spot=Spot.NEVER).applied(cluster.template(Stage.EMBED))
    told = json.loads(template["metadata"]["annotations"]["imgsearch.dev/sky-task"])["resources"]
    assert told["any_of"] == [{**each, "use_spot": False} for each in theirs["any_of"]]
    assert told["job_recovery"] == theirs["job_recovery"]


def test_of_a_job_only_the_indexes_that_were_taken_run_each_once(cluster: SkyBackend, machines: Machines) -> None:
    theirs = job(cluster, "leave(images=1)", completions=9, parallelism=4)
    theirs["metadata"]["annotations"][labels.OVERFLOW_OF] = "uid-1"
    cluster.take(theirs, [7])
    cluster.take(theirs, [7, 5])
    assert sorted(machines.names) == ["imgsearch-r1-embed-5", "imgsearch-r1-embed-7"]
    until(cluster, lambda state: state.succeeded == {5, 7})
    for _ in range(5):
        cluster.wait(1)
    assert cluster.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE, "the others are somebody else's"
    assert len(machines.names) == 2
    assert cluster.taken("r1", "uid-2") is None


def test_what_a_retry_may_mend_is_retried_on_another_machine(
    cluster: SkyBackend, machines: Machines, here: Path
) -> None:
    program = "t = here / 'tries'; t.open('a').write('x'); sys.exit(0 if t.stat().st_size > 1 else 3)"
    cluster.create(job(cluster, program, retries=1))
    assert ended(cluster).phase is Phase.COMPLETE
    assert machines.names == ["imgsearch-r1-embed-0"] * 2


def test_retries_come_to_an_end_and_the_sentence_stays(cluster: SkyBackend, machines: Machines) -> None:
    cluster.create(job(cluster, "leave(error='no space left'); sys.exit(3)", retries=2))
    state = ended(cluster)
    assert state.phase is Phase.FAILED
    assert state.errors() == {0: "no space left"}
    assert len(machines.names) == 3


@pytest.mark.parametrize("code", [2, 4])
def test_what_no_retry_can_mend_is_not_retried_and_the_other_shards_finish(
    cluster: SkyBackend, machines: Machines, code: int
) -> None:
    program = f"index or (leave(error='the shard is broken'), sys.exit({code}))"
    cluster.create(job(cluster, program, completions=3, retries=5))
    state = ended(cluster)
    assert (state.failed, state.succeeded) == ({0}, {1, 2})
    assert state.errors() == {0: "the shard is broken"}
    assert machines.names.count("imgsearch-r1-embed-0") == 1


def test_a_machine_that_is_taken_away_uses_up_no_retry(
    cluster: SkyBackend, machines: Machines, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create(job(cluster, "wait_for('go'); leave(images=1)", retries=0))
    for _ in range(3):
        until(cluster, lambda state: bool(machines.there) and not state.waiting_since)
        machines.take_away("imgsearch-r1-embed-0")
        cluster.wait(1)
    (here / "go").touch()
    assert ended(cluster).phase is Phase.COMPLETE
    assert machines.names == ["imgsearch-r1-embed-0"] * 4
    assert "was lost" in caplog.text


def test_the_next_try_waits_until_the_machine_of_the_one_before_is_gone(
    cluster: SkyBackend, machines: Machines
) -> None:
    machines.lingering = True
    cluster.create(job(cluster, "sys.exit(3)", retries=1))
    until(cluster, lambda state: len(machines.returned) > 2)
    assert machines.names == ["imgsearch-r1-embed-0"]
    machines.lingering = False
    assert ended(cluster).phase is Phase.FAILED
    assert machines.names == ["imgsearch-r1-embed-0"] * 2


def test_a_program_that_is_killed_is_said_to_have_been(cluster: SkyBackend) -> None:
    cluster.create(job(cluster, "print('half a line', end='', flush=True); os.kill(os.getpid(), 9)", retries=0))
    assert "out of memory" in ended(cluster).errors()[0]


def test_a_task_that_ends_without_a_word_is_a_failure(cluster: SkyBackend) -> None:
    cluster.create(job(cluster, "os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)", retries=0))
    assert ended(cluster).errors() == {0: UNKNOWN_ERROR}


def test_without_a_machine_it_waits_and_says_why_and_since_when(
    cluster: SkyBackend, machines: Machines, clock: Clock
) -> None:
    machines.nowhere = "no L4 in any region"
    since = clock.now()
    cluster.create(job(cluster, "", completions=2, parallelism=2))
    until(cluster, lambda _: len(machines.names) > 4)  # it is asked for again and again
    state = cluster.jobs("r1")[Stage.EMBED]
    assert state.waiting == {"no L4 in any region": 2}
    assert state.waiting_since == since.isoformat(timespec="seconds")
    machines.nowhere = ""
    state = ended(cluster)
    assert (state.phase, state.waiting, state.waiting_since) == (Phase.COMPLETE, {}, "")


def test_a_machine_is_not_asked_for_with_every_look(cluster: SkyBackend, machines: Machines) -> None:
    machines.nowhere = "no L4 in any region"
    cluster.create(job(cluster, ""))
    for _ in range(3):
        cluster.wait(1)
    assert len(machines.names) == 1


def test_a_run_without_capacity_is_given_up_and_asks_for_no_machine_any_more(
    cluster: SkyBackend, machines: Machines, clock: Clock
) -> None:
    machines.booting = True
    settings = replace(SETTINGS, store=StoreSettings(url="chroma+http://x:1"))
    capacity = Capacity(1, patience=120, now=clock.now)
    pipeline = Pipeline(cluster, settings, release=SKY_RELEASE, capacity=capacity, show=lambda _: None)
    end, _ = pipeline.run()
    assert end == Failed(Stage.PLAN, "no node had room within 120 s (it boots)")
    assert machines.there == []
    assert cluster.jobs("r1") == {}


def test_what_no_place_can_ever_have_fails_at_once(cluster: SkyBackend, machines: Machines) -> None:
    machines.refused = "no cloud has a FOO"
    cluster.create(job(cluster, "", retries=5))
    state = ended(cluster)
    assert state.errors() == {0: "no cloud has a FOO"}
    assert len(machines.names) == 1


def test_a_stage_that_takes_longer_than_its_deadline_is_ended(cluster: SkyBackend, machines: Machines) -> None:
    cluster.create(job(cluster, "wait_for('never')", completions=2, deadline_seconds=60))
    state = ended(cluster)
    assert state.phase is Phase.FAILED
    assert state.errors() == dict.fromkeys(range(2), "deadline exceeded: 60 s")
    assert machines.there == []


def test_a_silence_of_skypilot_is_waited_out(
    cluster: SkyBackend, machines: Machines, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create(job(cluster, "wait_for('go')"))
    machines.silent = True
    for _ in range(5):
        cluster.wait(1)
    (here / "go").touch()
    machines.silent = False
    assert ended(cluster).phase is Phase.COMPLETE
    assert len(machines.names) == 1
    assert "does not answer" in caplog.text


def test_a_silence_that_is_too_long_is_an_error(cluster: SkyBackend, machines: Machines, clock: Clock) -> None:
    cluster.create(job(cluster, "wait_for('go')"))
    began = clock.now()
    machines.silent = True
    with pytest.raises(TemporaryError, match="does not answer"):
        until(cluster, lambda _: False)
    assert (clock.now() - began).total_seconds() >= PATIENCE_SECONDS


def test_a_controller_that_comes_later_goes_on_with_the_same_machines(
    connected: Made, machines: Machines, here: Path
) -> None:
    first = connected()
    first.create(job(first, "wait_for('go'); leave(images=1)", completions=3, parallelism=2))
    (here / "go").touch()
    assert ended(connected()).images_done == 3
    assert sorted(machines.names) == [f"imgsearch-r1-embed-{index}" for index in range(3)]


def test_a_try_of_which_nobody_knows_whether_it_began_is_begun(
    connected: Made, machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    first = connected()
    machines.silent = True  # as if it were killed between its note and its request
    first.create(job(first, "leave(images=1)"))
    machines.silent = False
    assert ended(connected()).phase is Phase.COMPLETE
    assert machines.names == ["imgsearch-r1-embed-0"]


def test_two_controllers_at_once_make_nothing_twice(connected: Made, machines: Machines) -> None:
    one, other = connected(), connected()
    one.create(job(one, "leave(images=1)", completions=4, parallelism=2))
    other.create(job(other, "leave(images=1)", completions=4, parallelism=2))
    while one.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE:
        one.wait(1)
        other.jobs("r1")
        other.wait(1)
    assert sorted(machines.names) == [f"imgsearch-r1-embed-{index}" for index in range(4)]
    assert machines.most == 2


def test_clouds_are_asked_now_and_then_however_many_wait(connected: Made, machines: Machines) -> None:
    one, other = connected(), connected()
    one.create(job(one, "wait_for('go')"))
    other.jobs("r1")
    other.wait(1)  # it was looked at just now, and the clock goes on with each sleep
    assert machines.looks == 0
    one.wait(1)
    assert machines.looks == 1


def test_who_only_looks_moves_nothing(connected: Made, machines: Machines) -> None:
    connected().create(job(connected(), "", completions=2))
    looker = connected()
    for _ in range(5):
        looker.jobs("r1")
    assert len(machines.names) == 1


def test_a_run_that_nobody_moves_on_is_told(connected: Made, clock: Clock) -> None:
    first = connected()
    first.create(job(first, "wait_for('go')"))
    assert connected().troubles() == []
    for _ in range(10):
        clock.sleep(1)
    (trouble,) = connected().troubles()
    assert "run r1 (embed)" in trouble


def test_the_same_job_again_is_success_and_another_of_its_name_an_error(
    cluster: SkyBackend, machines: Machines
) -> None:
    cluster.create(job(cluster, ""))
    ended(cluster)
    cluster.create(job(cluster, ""))
    assert len(machines.names) == 1
    with pytest.raises(PermanentError, match="imgsearch-r1-embed exists with another spec"):
        cluster.create(job(cluster, "", completions=2))


def test_a_deleted_job_is_gone_with_its_machines(cluster: SkyBackend, machines: Machines) -> None:
    cluster.create(job(cluster, "wait_for('never')", completions=3, parallelism=2))
    until(cluster, lambda state: len(machines.there) == 2)
    cluster.delete("imgsearch-r1-embed")
    cluster.delete("imgsearch-r1-embed")
    assert machines.there == []
    assert cluster.jobs("r1") == {}
    assert cluster.runs() == []


def test_progress_is_read_from_the_log(cluster: SkyBackend, here: Path) -> None:
    program = """
print(json.dumps({'message': 'embedded', 'done': 40, 'total': 100}), file=sys.stderr)
print('a warning of some library', file=sys.stderr, flush=True)
wait_for('go')
"""
    cluster.create(job(cluster, program))
    state = until(cluster, lambda state: state.images_done == 40)
    assert state.indexes[0].total == 100
    (here / "go").touch()
    ended(cluster)


def test_the_log_of_an_index_is_that_of_all_its_tries(cluster: SkyBackend, here: Path) -> None:
    program = "t = here / 'tries'; t.open('a').write('x'); print('Käse', t.stat().st_size, flush=True)\n"
    program += "sys.exit(3) if t.stat().st_size < 2 else wait_for('go')"
    cluster.create(job(cluster, program))
    until(cluster, lambda state: "Käse 2" in cluster.log("r1", Stage.EMBED, 0))
    while_running = cluster.log("r1", Stage.EMBED, 0)
    (here / "go").touch()
    ended(cluster)
    for text in (while_running, cluster.log("r1", Stage.EMBED, 0)):
        assert [line for line in text.splitlines() if "Käse" in line] == ["Käse 1", "Käse 2"]


def test_a_log_that_is_not_there_is_named(cluster: SkyBackend) -> None:
    with pytest.raises(UsageError, match="no embed log of shard 7"):
        cluster.log("r1", Stage.EMBED, 7)


def test_gpu_hours_are_those_of_all_tries(cluster: SkyBackend, machines: Machines, here: Path) -> None:
    cluster.create(job(cluster, "wait_for('go')", placement=MachinePlacement((Kind("L4", 2),))))
    until(cluster, lambda state: state.usage.total > 0)
    machines.take_away("imgsearch-r1-embed-0")
    cluster.wait(1)
    lost = cluster.jobs("r1")[Stage.EMBED].usage.total
    assert lost == pytest.approx(2 * CHECK_SECONDS / 3600)
    until(cluster, lambda state: state.usage.total > lost)
    (here / "go").touch()
    assert ended(cluster).usage.total > lost


def test_a_call_returns_what_the_program_says_and_its_machine_goes(
    cluster: SkyBackend, machines: Machines, tmp_path: Path
) -> None:
    machines.patience = 60
    store = Settings(run=RunSettings(index="photos"), store=StoreSettings(url=f"chroma+file://{tmp_path}/chroma"))
    assert cluster.call("searcher", "indexes", store).result == {"indexes": []}
    with pytest.raises(UsageError, match="index 'photos'"):
        cluster.call("searcher", "rollback", store)
    with pytest.raises(UsageError, match="code 2"):
        cluster.call("searcher", "no-such-verb", store)
    assert machines.there == []


def test_what_a_call_prints_before_its_result_is_its_text(
    cluster: SkyBackend, machines: Machines, tmp_path: Path
) -> None:
    machines.patience = 60
    listed = tmp_path / "runs" / "r1" / "bad.csv"
    listed.parent.mkdir(parents=True)
    listed.write_text("key,stage,reason\nKäse [1].jpg,decode,truncated\n")
    settings = Settings.from_env({"IMGSEARCH_RUN_ID": "r1", "IMGSEARCH_STORAGE_URI": tmp_path.as_uri()})
    told = cluster.call("searcher", "bad", settings)
    assert told.text == listed.read_text()
    assert told.result == {"run": "r1", "bytes": len(listed.read_bytes())}


@pytest.mark.parametrize(
    ("trouble", "kind"), [({"nowhere": "no CPU anywhere"}, TemporaryError), ({"refused": "no cloud"}, PermanentError)]
)
def test_a_call_without_a_machine_says_why(
    cluster: SkyBackend, machines: Machines, trouble: dict[str, str], kind: type[Exception]
) -> None:
    ((name, why),) = trouble.items()
    setattr(machines, name, why)
    with pytest.raises(kind, match=why):
        cluster.call("searcher", "indexes", SETTINGS)


PLACE = {"IMGSEARCH_STORAGE_URI": "s3://team/photos", "IMGSEARCH_STORE_URL": "chroma+http://chroma:8000"}


def test_settings_are_those_of_the_files_and_of_the_environment() -> None:
    told = read_settings(TASKS, {**PLACE, "HOME": "/home/me"})
    assert told.storage.uri == "s3://team/photos"
    assert told.run.shard_images == 100_000, "plan.yaml says so"
    assert read_settings(TASKS, {**PLACE, "IMGSEARCH_RUN_SHARD_IMAGES": "7"}).run.shard_images == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMGSEARCH_STORAGE_URI", ""),
        ("IMGSEARCH_STORE_URL", "chroma+file:///x"),
        ("IMGSEARCH_STORAGE_URI", "file:///x"),
    ],
)
def test_what_the_machines_cannot_reach_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        read_settings(TASKS, {**PLACE, name: value})


def test_a_folder_without_tasks_is_named(connected: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"embed\.yaml .*--sky-tasks"):
        connected(files=tmp_path).template(Stage.EMBED)
    (tmp_path / "embed.yaml").write_text("name: [")
    with pytest.raises(UsageError, match=r"embed\.yaml"):
        connected(files=tmp_path).template(Stage.EMBED)
    (tmp_path / "embed.yaml").write_text("name: x\n")
    with pytest.raises(UsageError, match=r"embed\.yaml.*`resources` and `run`"):
        connected(files=tmp_path).template(Stage.EMBED)


def test_a_queue_of_kueue_is_refused(cluster: SkyBackend) -> None:
    cluster.check(job(cluster, ""))
    with pytest.raises(UsageError, match="Kueue"):
        cluster.check(job(cluster, "", queue="gpus"))


def test_runs_are_known_by_their_jobs(cluster: SkyBackend) -> None:
    assert cluster.runs() == []
    cluster.create(job(cluster, ""))
    assert cluster.runs() == ["r1"]
    assert os.listdir(cluster._jobs) == ["imgsearch-r1-embed"]
