from __future__ import annotations

from pathlib import Path

import pytest

from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "with space").as_uri())


def test_what_is_put_is_got(storage: Storage) -> None:
    storage.put("a/b", b"one")
    storage.put("a/b", b"two")
    assert storage.get("a/b") == b"two"
    assert storage.get_range("a/b", 1, 2) == b"wo"
    assert storage.exists("a/b")


def test_a_marker_is_written_once(storage: Storage) -> None:
    assert storage.create("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.get("a") == b"first"


def test_what_is_not_there_is_named(storage: Storage) -> None:
    assert not storage.exists("no/such")
    for call in (lambda: storage.get("no/such"), lambda: storage.get_range("no/such", 0, 1)):
        with pytest.raises(NotFound, match="no/such"):
            call()


@pytest.mark.parametrize(("offset", "length"), [(2, 2), (3, 1), (100, 1)])
def test_a_range_behind_the_end_is_an_error(storage: Storage, offset: int, length: int) -> None:
    storage.put("a", b"abc")
    with pytest.raises(PermanentError):
        storage.get_range("a", offset, length)


def test_folders_and_keys_are_listed(storage: Storage) -> None:
    for key in ("runs/a/1", "runs/a/b/2", "runs/b/3"):
        storage.put(key, b"")
    assert storage.folders("runs") == ["a", "b"]
    assert sorted(storage.keys("runs/a")) == ["runs/a/1", "runs/a/b/2"]
    assert storage.folders("none") == []
    assert list(storage.keys("none")) == []


def test_a_deleted_folder_is_gone(storage: Storage, tmp_path: Path) -> None:
    storage.put("runs/a/b/1", b"")
    storage.put("runs/b/1", b"")
    assert storage.delete("runs/a") == 1
    assert storage.folders("runs") == ["b"]
    assert not (tmp_path / "with space" / "runs" / "a").exists()


@pytest.mark.parametrize("uri", ["", "/a/path", "file://host/path", "ftp://host/x", "s3://"])
def test_what_is_no_storage_is_refused_with_what_is(uri: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        Storage(uri)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        Storage((tmp_path / "file" / "below").as_uri())
