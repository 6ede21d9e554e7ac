"""Objects on a disk or in a bucket: atomic puts, put-if-absent, ranges, listings. The one door to `obstore`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError

if TYPE_CHECKING:  # obstore has it for type checkers only
    from obstore import ObjectMeta

BUCKETS: dict[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
METADATA_SERVERS = ("http://169.254.169.254/", "http://metadata.google.internal/")
"""Whom obstore asks for credentials where the environment has none."""
STATUS = re.compile(r"status code: (\d{3} [\w ]+)")
ANSWER = re.compile(r"<Code>(.+?)</Code>\s*<Message>(.*?)</Message>", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """An object, as a listing knows it."""

    key: str
    size: int
    etag: str
    """Changes when the content does; never empty."""


class Storage:
    """Objects below one URI. A put is whole or absent, never half. Any thread may call."""

    def __init__(self, uri: str) -> None:
        """`uri` is `file:///folder` (made if absent), `s3://bucket/prefix`, `gs://…` or `az://…`; credentials
        come from the environment, or from the machine's role. Raises UsageError for another URI."""
        self.uri = uri.rstrip("/")
        self._store = _open(uri)

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The whole object; raises NotFound, PermanentError where it has more than `limit` bytes."""
        with self._translated("read", key):
            found = obstore.get(self._store, key)
            if limit is None or found.meta["size"] <= limit:
                return bytes(found.bytes())
        raise PermanentError(f"{self.uri}/{key} has more than {limit} bytes")

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

    def entry(self, key: str) -> Entry:
        """The object without its bytes; raises NotFound."""
        with self._translated("look at", key):
            return _entry(obstore.head(self._store, key))

    def exists(self, key: str) -> bool:
        try:
            self.entry(key)
        except NotFound:
            return False
        return True

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All objects below `folder`, in no particular order and with flat memory; none where there is no such
        folder. Raises UsageError for an object that has a name which cannot be asked for."""
        with self._translated("list", folder):
            try:
                for chunk in obstore.list(self._store, folder):
                    yield from map(_entry, chunk)
            except InvalidPathError as error:
                raise UsageError(
                    f"{self.uri}/{folder} cannot be listed because of one name in it: rename it ({_reason(error)})"
                ) from error

    def keys(self, folder: str) -> Iterator[str]:
        """Keys of `entries`."""
        return (entry.key for entry in self.entries(folder))

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
        except (BaseError, OSError, ValueError) as error:
            raise self._failure(verb, key, error) from error

    def _failure(self, verb: str, key: str, error: Exception) -> ImgsearchError:
        """By its text more than by its class: what goes wrong in a listing is of one class, whatever it is."""
        if mistake := _mistake(self.uri, error):
            return UsageError(mistake)
        reason = _reason(error)
        answered = STATUS.search(str(error))
        status = answered[1][:3] if answered else ""
        # obstore's NotFoundError is the builtin. A ValueError is a key that no object can have. The disk says 20 where
        # a file is asked for what is in it.
        if isinstance(error, FileNotFoundError | ValueError) or "(os error 20)" in reason:
            return NotFound(f"{self.uri}/{key} is not there")
        if status in ("401", "403"):
            return PermanentError(
                f"not allowed to {verb} {self.uri}/{key}: check the credentials and their rights ({reason})"
            )
        if status == "404":
            return PermanentError(f"could not {verb} {self.uri}/{key}: {reason}")
        if "No space left on device" in reason:
            return PermanentError(f"no space left on the disk of {self.uri}: free some, then give the same command")
        if "Permission denied" in reason or "Read-only file system" in reason:
            return PermanentError(f"not allowed to {verb} {self.uri}/{key}: check who may write there")
        if status == "416" or "Requested range was invalid" in reason:
            return PermanentError(f"{self.uri}/{key} is shorter than what was written")
        return TemporaryError(f"could not {verb} {self.uri}/{key}: {reason}")


def _entry(found: ObjectMeta) -> Entry:
    etag = (found["e_tag"] or "").replace('"', "")  # quoted in HTTP
    return Entry(found["path"], found["size"], etag or f"{found['last_modified'].isoformat()}-{found['size']:x}")


def _mistake(uri: str, error: Exception) -> str | None:
    """What to correct so that `uri` can be used at all; None where that is not what is wrong."""
    reason = _reason(error)
    if reason.startswith(("NoSuchBucket:", "ContainerNotFound:")):
        return f"there is no bucket for {uri}: check its name, and the endpoint if one is set"
    if any(server in str(error) for server in METADATA_SERVERS):
        return (
            f"there are no credentials for {uri}: set {CREDENTIALS[urlsplit(uri).scheme]}, or give the machine a role"
        )
    if reason.startswith("AuthorizationHeaderMalformed:") or "incorrectly configured region" in reason:
        return f"{uri} is in another region: set AWS_REGION ({reason})"
    if reason == "400 Bad Request":  # to a HEAD, nobody says why
        return f"{uri} is in another region, or its credentials have expired: correct AWS_REGION, or them"
    return None


def _reason(error: Exception) -> str:
    """What the service says, be it only a status, else the first line of what obstore says."""
    text = str(error)
    if said := ANSWER.search(text):
        return f"{said[1]}: {unescape(said[2])}"
    status = STATUS.search(text)
    return status[1] if status else text.split("\n", 1)[0]


def _open(uri: str) -> ObjectStore:
    parts = urlsplit(uri)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        try:
            Path(unquote(parts.path)).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {unquote(parts.path)}: {error.strerror}") from error
        return LocalStore(unquote(parts.path), automatic_cleanup=True)  # an empty folder goes with its last object
    if parts.scheme in BUCKETS and parts.netloc:
        bucket, _, prefix = uri.partition("://")[2].partition("/")  # not `parts`: a name may have a ? or #
        try:
            # An endpoint is plain http only where somebody says so. As `client_options` this would end all of those
            # that the environment has.
            return BUCKETS[parts.scheme](bucket, prefix=unquote(prefix).strip("/") or None, allow_http=True)
        except (BaseError, ValueError) as error:
            needed = CREDENTIALS[parts.scheme]
            raise UsageError(f"cannot use {uri}: {_reason(error)}; its credentials are {needed}") from error
    raise UsageError(f"{uri!r} is no storage URI; use file:///folder, s3://bucket/prefix, gs://… or az://…")
