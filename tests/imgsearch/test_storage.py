"""Storage on a disk and in a bucket, and what becomes of an answer that says no."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.storage import Storage
from tests.scripted_server import ScriptedServer

CALLS: dict[str, Callable[[Storage], object]] = {
    "get": lambda storage: storage.get("a"),
    "put": lambda storage: storage.put("a", b"x"),
    "list": lambda storage: list(storage.entries()),
}


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


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
    for call in (storage.get, storage.entry, lambda key: storage.get_range(key, 0, 1)):
        with pytest.raises(NotFound, match="no/such"):
            call("no/such")


@pytest.mark.parametrize("key", ["a//b", "../a", "a/./b", "a\nb", "a\0b"])
def test_what_no_object_can_be_called_is_not_there(storage: Storage, key: str) -> None:
    with pytest.raises(NotFound):
        storage.get(key)


def test_an_object_over_the_limit_is_not_read(storage: Storage) -> None:
    storage.put("a", b"123")
    assert storage.get("a", limit=3) == b"123"
    with pytest.raises(PermanentError, match="/a has more than 2 bytes"):
        storage.get("a", limit=2)


def test_an_entry_is_the_same_alone_and_in_a_listing(storage: Storage) -> None:
    for key in ("a b/ü%20#?.png", "a b2/x.png"):
        storage.put(key, b"123")
    [entry] = storage.entries("a b")
    assert entry == storage.entry("a b/ü%20#?.png")
    assert (entry.key, entry.size) == ("a b/ü%20#?.png", 3)
    assert entry.etag
    assert '"' not in entry.etag


def test_a_listing_has_as_many_pages_as_it_takes(storage: Storage) -> None:
    keys = {f"{n:04}" for n in range(1_200)}
    for key in keys:
        storage.put(key, b"")
    assert {entry.key for entry in storage.entries()} == keys


def test_a_name_that_cannot_be_asked_for_is_a_usage_error(tmp_path: Path) -> None:
    storage = Storage(tmp_path.as_uri())
    (tmp_path / "a\tb.png").touch()
    with pytest.raises(UsageError, match=r"rename it \(.*b\.png"):
        list(storage.entries())


@pytest.mark.parametrize("name", ["100%25 #1?", "100%25%20%231%3F"])
def test_the_name_of_a_prefix_is_taken_whole(s3_storage: Storage, name: str) -> None:
    Storage(f"{s3_storage.uri}/{name}/").put("a", b"x")
    assert [entry.key for entry in s3_storage.entries()] == ["100% #1?/a"]


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


def test_a_deleted_folder_is_gone(storage: Storage) -> None:
    storage.put("runs/a/b/1", b"")
    storage.put("runs/b/1", b"")
    assert storage.delete("runs/a") == 1
    assert storage.folders("runs") == ["b"]


def test_a_folder_of_the_disk_goes_with_its_last_object(tmp_path: Path) -> None:
    storage = Storage(tmp_path.as_uri())
    storage.put("runs/a/b/1", b"")
    storage.delete("runs/a")
    assert not (tmp_path / "runs" / "a").exists()


KILLED = """
import resource, signal, sys
from imgsearch.storage import Storage
storage = Storage(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
storage.put("runs/r1/a", bytes(1_000_000))
"""
"""The system kills the process in the middle of the put."""


def test_a_put_of_a_killed_process_is_invisible_and_deleted_with_its_folder(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, tmp_path.as_uri()])
    assert process.returncode == -signal.SIGXFSZ
    assert [file.stat().st_size for file in (tmp_path / "runs" / "r1").iterdir()] == [1000]
    storage = Storage(tmp_path.as_uri())
    assert list(storage.keys("runs")) == []
    storage.put("runs/r1/b", b"x")
    assert storage.delete("runs/r1") == 1
    assert not (tmp_path / "runs" / "r1").exists()
    assert storage.folders("runs") == []


@pytest.mark.parametrize("uri", ["", "/a/path", "file://host/path", "ftp://host/x", "s3://"])
def test_what_is_no_storage_is_refused_with_what_is(uri: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        Storage(uri)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"folder .*file/below"):
        Storage((tmp_path / "file" / "below").as_uri())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "code", "error", "sentence"),
    [
        (404, "NoSuchBucket", UsageError, "bucket of s3://photos/holiday"),
        (403, "SignatureDoesNotMatch", PermanentError, r"s3://photos/holiday/.*credentials .*NotMatch: Why &"),
        (403, "", PermanentError, "s3://photos/holiday/.*credentials"),
        (401, "Unauthorized", PermanentError, "s3://photos/holiday/.*credentials"),
        (400, "AuthorizationHeaderMalformed", UsageError, "AWS_REGION"),
        (301, "", UsageError, "AWS_REGION"),
        (400, "RequestTimeout", TemporaryError, "s3://photos/holiday/.*: RequestTimeout: Why & how"),
    ],
)
def test_a_refusal_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    s3_keys: None,
    call: Callable[[Storage], object],
    status: int,
    code: str,
    error: type[ImgsearchError],
    sentence: str,
) -> None:
    document = f"<Error><Code>{code}</Code><Message>Why &amp; how</Message></Error>"
    with ScriptedServer((status, {}, f'<?xml version="1.0"?>\n{document}'.encode())).serving() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(error, match=sentence) as caught:
            call(Storage("s3://photos/holiday"))
    assert caught.type is error


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (404, NotFound, "s3://photos/holiday/a "),
        (403, PermanentError, r"s3://photos/holiday/a: .* \(403 Forbidden\)"),
        (400, UsageError, r"region.* credentials.*AWS_REGION"),
        (301, UsageError, "AWS_REGION"),
    ],
)
def test_a_refusal_without_a_body_says_what_it_may_be(
    monkeypatch: pytest.MonkeyPatch, s3_keys: None, status: int, error: type[ImgsearchError], sentence: str
) -> None:
    with ScriptedServer((status, {}, b"")).serving() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(error, match=sentence) as caught:
            Storage("s3://photos/holiday").entry("a")
    assert caught.type is error


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("s3://photos/holiday", "AWS_ACCESS_KEY_ID"),
        ("gs://photos/holiday", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://photos/holiday", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_without_credentials_it_says_which_variables_have_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[[Storage], object], uri: str, variable: str
) -> None:
    """The address that is asked for them, which only a cloud's machines have, is answered by a proxy here."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")) or name.lower() == "no_proxy":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    with ScriptedServer((404, {}, b"")).serving() as url:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, url)
        with pytest.raises(UsageError, match=f"no credentials for {uri}: set .*{variable}"):
            call(Storage(uri))


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match=r"cannot use az://photos: .*Account.*AZURE_STORAGE_ACCOUNT_NAME"):
        Storage("az://photos")


def test_a_service_that_is_down_is_a_temporary_error(monkeypatch: pytest.MonkeyPatch, s3_keys: None) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TemporaryError, match="s3://photos/holiday/: "):
        list(Storage("s3://photos/holiday").entries())
