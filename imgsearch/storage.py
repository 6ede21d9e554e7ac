"""Objects on a disk or in a bucket: atomic puts, put-if-absent, ranges, listings. The one door to `obstore`."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store
from typing_extensions import Buffer

from imgsearch.errors import FULL_DISK, ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError

if TYPE_CHECKING:  # obstore has it for type checkers only
    from obstore import ObjectMeta

BUCKETS: dict[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
METADATA_SERVERS = ("http://169.254.169.254/", "http://metadata.google.internal/")
"""obstore requests credentials from these if the environment has none."""
CHUNK_BYTES = 2**22
"""Bytes of an object in memory at a time, where it is not needed as a whole."""
STATUS = re.compile(r"status code: (\d{3} [\w ]+)")
ERROR = re.compile(r"<Code>(.+?)</Code>\s*<Message>(.*?)</Message>", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """An object of a listing."""

    key: str
    size: int
    etag: str
    """Changes when the content does; never empty."""


class Storage:
    """Objects below one URI. A put is atomic. Any thread may call."""

    def __init__(self, uri: str) -> None:
        """`uri` is `file:///folder` (created if it does not exist), `s3://bucket/prefix`, `gs://…` or `az://…`.
        Credentials come from the environment, or from the machine's role. Raises UsageError for another URI."""
        self.uri = uri.rstrip("/")
        self._folder = _local_folder(uri)
        self._store = _open(uri, self._folder)

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The whole object; raises NotFound, or PermanentError if it has more than `limit` bytes."""
        return self.get_with_entry(key, limit=limit)[0]

    def get_with_entry(self, key: str, *, limit: int | None = None) -> tuple[bytes, Entry]:
        """The whole object with the size and the etag of these bytes; raises the errors of `get`."""
        with self._translated("read", key):
            response = obstore.get(self._store, key)
            if limit is None or response.meta["size"] <= limit:
                return bytes(response.bytes()), _entry(response.meta)
        raise PermanentError(f"{self.uri}/{key} has more than {limit} bytes")

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; raises NotFound, or PermanentError if the object is shorter."""
        with self._translated("read", key):
            data = bytes(obstore.get_range(self._store, key, start=offset, length=length))
        if len(data) != length:
            raise PermanentError(f"{self.uri}/{key} ends before byte {offset + length}: it was damaged or replaced")
        return data

    def chunks(self, key: str) -> Iterator[Buffer]:
        """The object in pieces, with flat memory; raises NotFound."""
        with self._translated("read", key):
            yield from obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES)

    def sha256(self, key: str) -> str:
        """The SHA-256 of the object in hex, with flat memory; raises NotFound."""
        hash = hashlib.sha256()
        for chunk in self.chunks(key):
            hash.update(chunk)
        return hash.hexdigest()

    def file(self, key: str) -> Path | None:
        """The file of the object, where the storage is a folder; else None."""
        return None if self._folder is None else self._folder / key

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Writes or replaces the object."""
        with self._translated("write", key):
            obstore.put(self._store, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if it does not exist; returns whether it did."""
        with self._translated("write", key):
            try:
                obstore.put(self._store, key, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def entry(self, key: str) -> Entry:
        """Size and etag of the object; raises NotFound."""
        with self._translated("read", key):
            return _entry(obstore.head(self._store, key))

    def exists(self, key: str) -> bool:
        try:
            self.entry(key)
        except NotFound:
            return False
        return True

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All objects below `folder`, in any order and with flat memory; none if the folder does not exist.
        Raises UsageError for an object with an invalid name."""
        with self._translated("list", folder):
            try:
                for chunk in obstore.list(self._store, folder):
                    yield from map(_entry, chunk)
            except InvalidPathError as error:
                raise UsageError(
                    f"{self.uri}/{folder} contains an object with an invalid name: rename it ({_reason(error)})"
                ) from error

    def keys(self, folder: str) -> Iterator[str]:
        """Keys of `entries`."""
        return (entry.key for entry in self.entries(folder))

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted."""
        with self._translated("list", folder):
            prefixes = obstore.list_with_delimiter(self._store, folder)["common_prefixes"]
        return sorted(str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in prefixes)

    def remove(self, key: str) -> None:
        """Deletes the object, if it exists."""
        with self._translated("delete", key), suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def delete(self, folder: str) -> int:
        """Deletes every object below `folder`; returns their number."""
        keys = list(self.keys(folder))
        with self._translated("delete", folder):
            for start in range(0, len(keys), 1000):
                obstore.delete(self._store, keys[start : start + 1000])
        if self._folder is not None:
            # A process that is killed leaves the file that obstore was writing, which is not in a listing.
            shutil.rmtree(self._folder / folder, ignore_errors=True)
        return len(keys)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise self._failure(verb, key, error) from error

    def _failure(self, verb: str, key: str, error: Exception) -> ImgsearchError:
        """Our error for an error of obstore. It reads the text, because all errors of a listing have the same class."""
        if mistake := _mistake(self.uri, error):
            return UsageError(mistake)
        reason = _reason(error)
        match = STATUS.search(str(error))
        status = match[1][:3] if match else ""
        # obstore's NotFoundError is the builtin. A ValueError is an invalid key. Error 20 of the disk is a key below a
        # file.
        if isinstance(error, FileNotFoundError | ValueError) or "(os error 20)" in reason:
            return NotFound(f"{self.uri}/{key} does not exist")
        if status in ("401", "403"):
            return PermanentError(
                f"no permission to {verb} {self.uri}/{key}: check the credentials and their rights ({reason})"
            )
        if status == "404":
            return PermanentError(f"could not {verb} {self.uri}/{key}: {reason}")
        if any(os.strerror(code) in str(error) for code in FULL_DISK):  # obstore's errors have no errno
            return PermanentError(f"no space left on the disk of {self.uri}: free some space and repeat the command")
        if "Permission denied" in reason or "Read-only file system" in reason:
            return PermanentError(f"no permission to {verb} {self.uri}/{key}: check the permissions of the folder")
        if status == "416" or "Requested range was invalid" in reason:
            return PermanentError(f"{self.uri}/{key} is shorter than expected: it was damaged or replaced")
        return TemporaryError(f"could not {verb} {self.uri}/{key}: {reason}")


def _entry(meta: ObjectMeta) -> Entry:
    etag = (meta["e_tag"] or "").replace('"', "")  # quoted in HTTP
    modified = meta["last_modified"].isoformat(timespec="seconds")  # as in HTTP; a listing has more digits
    return Entry(meta["path"], meta["size"], etag or f"{modified}-{meta['size']:x}")


def _mistake(uri: str, error: Exception) -> str | None:
    """The mistake in `uri` or its configuration, and its correction; None if the error has another cause."""
    reason = _reason(error)
    if reason.startswith(("NoSuchBucket:", "ContainerNotFound:")):
        return f"the bucket of {uri} does not exist: check its name, and the endpoint if one is set"
    if any(server in str(error) for server in METADATA_SERVERS):
        return f"no credentials for {uri}: set {CREDENTIALS[urlsplit(uri).scheme]}, or give the machine a role"
    if reason.startswith("AuthorizationHeaderMalformed:") or "incorrectly configured region" in reason:
        return f"{uri} is in another region: set AWS_REGION ({reason})"
    if reason == "400 Bad Request":  # the response to a HEAD has no reason
        return f"{uri} is in another region, or its credentials have expired: correct AWS_REGION or the credentials"
    return None


def _reason(error: Exception) -> str:
    """The error of the service; else its status; else the first line of obstore's error."""
    text = str(error)
    if error_document := ERROR.search(text):
        return f"{error_document[1]}: {unescape(error_document[2])}"
    status = STATUS.search(text)
    return status[1] if status else text.split("\n", 1)[0]


def _local_folder(uri: str) -> Path | None:
    """The folder of a `file://` URI; None for another URI."""
    parts = urlsplit(uri)
    is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    return Path(unquote(parts.path)) if is_folder else None


def _open(uri: str, folder: Path | None) -> ObjectStore:
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot create the folder {folder}: {error.strerror}") from error
        return LocalStore(folder, automatic_cleanup=True)  # deletes a folder with its last object
    parts = urlsplit(uri)
    if parts.scheme in BUCKETS and parts.netloc:
        bucket, _, prefix = uri.partition("://")[2].partition("/")  # not `parts`: a name may contain ? or #
        try:
            # An endpoint is plain http only if its URL says so. In `client_options`, this would replace all options of
            # the environment.
            return BUCKETS[parts.scheme](bucket, prefix=unquote(prefix).strip("/") or None, allow_http=True)
        except (BaseError, ValueError) as error:
            needed = CREDENTIALS[parts.scheme]
            raise UsageError(f"cannot use {uri}: {_reason(error)}; its credentials are {needed}") from error
    raise UsageError(f"invalid storage URI {uri!r}: use file:///folder, s3://bucket/prefix, gs://… or az://…")
