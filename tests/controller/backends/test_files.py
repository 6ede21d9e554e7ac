from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.backends.files import read_yaml, write_atomically, write_json, write_yaml
from imgsearch.errors import UsageError


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
