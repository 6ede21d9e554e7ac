"""Run folders on a disk or in a bucket: atomic puts, put-if-absent, ranges. The one door to `obstore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, ObjectStore, from_url

from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError


class Storage:
    """Objects below one URI. A put is whole or absent, never half. Any thread may call."""

    def __init__(self, uri: str) -> None:
        """`uri` is `file:///folder` (made if absent), `s3://bucket/prefix`, `gs://…` or `az://…`; credentials
        come from the environment, as each cloud's own tools read them. Raises UsageError for another URI."""
        self.uri = uri.rstrip("/")
        self._store = _open(uri)

    def get(self, key: str) -> bytes:
        """The whole object; raises NotFound."""
        with self._translated("read", key):
            return bytes(obstore.get(self._store, key).bytes())

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; raises NotFound, PermanentError where the object is shorter."""
        with self._translated("read", key):
            data = bytes(obstore.get_range(self._store, key, start=offset, length=length))
        if len(data) != length:
            raise PermanentError(f"{self.uri}/{key} ends before byte {offset + length}: it is not what was written")
        return data

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Writes or replaces the object."""
        with self._translated("write", key):
            obstore.put(self._store, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if there is none, and says whether it did."""
        with self._translated("write", key):
            try:
                obstore.put(self._store, key, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def exists(self, key: str) -> bool:
        try:
            with self._translated("look at", key):
                obstore.head(self._store, key)
        except NotFound:
            return False
        return True

    def keys(self, folder: str) -> Iterator[str]:
        """Keys of all objects below `folder`, in no particular order; none where there is no such folder."""
        with self._translated("list", folder):
            for chunk in obstore.list(self._store, folder):
                for entry in chunk:
                    yield entry["path"]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted."""
        with self._translated("list", folder):
            found = obstore.list_with_delimiter(self._store, folder)["common_prefixes"]
        return sorted(str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in found)

    def delete(self, folder: str) -> int:
        """Removes every object below `folder`; returns how many there were."""
        keys = list(self.keys(folder))
        with self._translated("delete", folder):
            for start in range(0, len(keys), 1000):
                obstore.delete(self._store, keys[start : start + 1000])
        return len(keys)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:  # obstore's NotFoundError is this builtin
            raise NotFound(f"{self.uri}/{key} is not there") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PermanentError(
                f"not allowed to {verb} {self.uri}/{key}: check the credentials and their rights"
            ) from error
        except (BaseError, OSError) as error:
            raise self._failure(verb, key, error) from error

    def _failure(self, verb: str, key: str, error: Exception) -> ImgsearchError:
        reason = str(error).split("\n", 1)[0]
        if "No space left on device" in reason:
            return PermanentError(f"no space left on the disk of {self.uri}: free some, then give the same command")
        if "Permission denied" in reason or "Read-only file system" in reason:
            return PermanentError(f"not allowed to {verb} {self.uri}/{key}: check who may write there")
        if "Requested range was invalid" in reason:
            return PermanentError(f"{self.uri}/{key} is shorter than what was written")
        return TemporaryError(f"could not {verb} {self.uri}/{key}: {reason}")


def _open(uri: str) -> ObjectStore:
    parts = urlsplit(uri)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        try:
            Path(unquote(parts.path)).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {unquote(parts.path)}: {error.strerror}") from error
        return LocalStore(unquote(parts.path), automatic_cleanup=True)  # an empty folder goes with its last object
    if parts.scheme in ("s3", "gs", "az") and parts.netloc:
        try:
            return from_url(uri)
        except BaseError as error:
            raise UsageError(f"cannot use {uri} as storage: {str(error).splitlines()[0]}") from error
    raise UsageError(f"{uri!r} is no storage URI; use file:///folder, s3://bucket/prefix, gs://… or az://…")
