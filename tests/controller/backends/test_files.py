from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.backends.files import read_job, read_yaml, runs_below, write_atomically, write_json, write_yaml
from controller.backends.local import LocalBackend
from controller.jobs.manifests import job
from controller.jobs.state import Stage
from imgsearch.errors import PermanentError, UsageError
from imgsearch.settings import RunSettings, Settings


def test_a_file_is_replaced_as_a_whole_and_others_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    write_atomically(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text"


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "before")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


KILLED = """
import os, signal, sys
from pathlib import Path
from controller.backends.files import write_atomically
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), "never visible")
"""


def test_a_killed_writer_leaves_nothing_that_a_later_one_does_not_remove(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "before")
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, str(file)]).returncode == -signal.SIGKILL
        assert file.read_text() == "before"
        assert len(list(tmp_path.iterdir())) == 2
    write_atomically(file, "after")
    assert file.read_text() == "after"
    assert list(tmp_path.iterdir()) == [file]


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    file = tmp_path / "file"
    texts = [str(number) * 100_000 for number in range(10)]
    with ThreadPoolExecutor(len(texts)) as pool:
        for written in [pool.submit(write_atomically, file, text) for text in texts * 5]:
            written.result()
    assert file.read_text() in texts
    assert list(tmp_path.iterdir()) == [file]


def test_yaml_is_a_mapping_or_an_error(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.yaml"
    assert read_yaml(file) == {}
    write_yaml(file, {"b": 1, "a": [2]})
    assert read_yaml(file) == {"b": 1, "a": [2]}
    for text in ("- a", "a: ["):
        file.write_text(text)
        with pytest.raises(UsageError, match=str(file)):
            read_yaml(file)


WITHOUT_LOCKS = """
import errno, fcntl, sys
from pathlib import Path
from controller.backends.files import NoLocks, lock, write_atomically
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
file = Path(sys.argv[1])
write_atomically(file, "first", mode=0o600)
write_atomically(file, "second", mode=0o600)
try:
    lock(file.open(), fcntl.LOCK_EX)
except NoLocks as error:
    print(error)
"""


def test_without_locks_of_the_file_system_a_file_is_still_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    completed = subprocess.run([sys.executable, "-c", WITHOUT_LOCKS, str(file)], capture_output=True, text=True)
    assert completed.stdout == (
        f"the file system of {file} has no locks (flock): choose a folder on a local disk with --home\n"
    ), completed.stderr
    assert file.read_text() == "second"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


class TestJob:
    """The `job.json` of a Job, which a full disk or a person may have damaged."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "jobs" / "local-r1-plan"
        folder.mkdir(parents=True)
        settings = Settings(run=RunSettings(id="r1", index="photos"))
        template = {"spec": {"containers": [{"name": "plan", "command": ["true"]}]}}
        plan = job(Stage.PLAN, settings, template, release="local", completions=1, parallelism=1)
        write_json(folder / "job.json", {**plan, "status": {}})
        return folder

    def test_is_read_as_it_was_written(self, folder: Path) -> None:
        assert read_job(folder) == json.loads((folder / "job.json").read_text())
        assert read_job(folder.parent) is None
        assert runs_below(folder.parent) == ["r1"]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "invalid JSON"),
            ('{"metadata": {"name"', "invalid JSON"),
            ("[]", "input should be"),
            ("{}", "field metadata: field required"),
            ('{"metadata": {"name": "j", "labels": 7, "annotations": {}}}', "field metadata.labels: "),
            ('{"metadata": {"name": "j", "labels": {}, "annotations": {}}, "spec": {}}', "field spec.completions: "),
        ],
    )
    def test_that_is_damaged_is_named_with_its_field_and_the_solution(
        self, folder: Path, text: str, problem: str
    ) -> None:
        (folder / "job.json").write_text(text)
        for read in (
            lambda: read_job(folder),
            lambda: runs_below(folder.parent),
            lambda: LocalBackend(folder.parent.parent, env={}).jobs("r1"),
        ):
            with pytest.raises(PermanentError) as caught:
                read()
            message = str(caught.value)
            assert message.startswith(f"{folder}/job.json is damaged or was changed (")
            assert problem in message
            assert message.endswith(f"delete the folder {folder}, then give the same command again")
