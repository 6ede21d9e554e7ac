"""The files of tables on this machine: those of a storage on disk are used in place, others are downloaded once."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from imgsearch.errors import NotFound, PermanentError, first_line, os_reason
from imgsearch.runs.digests import Damaged, check, file_name
from imgsearch.runs.documents import Table
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from searcher.table.reader import RunTable

THREADS = 8
"""Files that are read at a time. The search threads need the CPUs, too, but a download waits most of its time."""


def cache_folder(env: Mapping[str, str]) -> Path:
    """The folder for downloads, in the user's cache folder (https://specifications.freedesktop.org/basedir-spec/)."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgsearch" / "tables"


class TableFiles:
    """Opens the tables of the runs of one storage. Any thread and any process may call.

    Every file is compared with its digest before it is used, also a file that an earlier process downloaded."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        """`cache` gets the downloads, in a folder for each storage and run."""
        self._storage = storage
        self._cache = cache / hashlib.sha256(storage.uri.encode()).hexdigest()[:16]

    def document(self, run: str) -> Table | None:
        """The description of the table of a run; None: the run has no table, or its ingest has not ended.

        Raises what Storage raises, and PermanentError for a damaged one."""
        name = RunFolder(run).table
        try:
            return Table.from_json(self._storage.get(name), name)
        except NotFound:
            return None

    def open(self, document: Table) -> RunTable:
        """The table. Raises Damaged, and what Storage raises; PermanentError where the cache cannot be written."""
        if self._storage.file(RunFolder(document.run).table) is not None:
            return self._mapped(document, self._in_place)
        with self._locked():  # until it is mapped, since `keep` of another process may not need this run yet
            return self._mapped(document, self._downloaded)

    def keep(self, runs: Collection[str]) -> None:
        """Deletes the downloads of all other runs. Open tables stay usable."""
        with self._translated():
            if not self._cache.exists():
                return
        with self._locked():
            for folder in self._cache.iterdir():
                if folder.is_dir() and folder.name not in runs:
                    shutil.rmtree(folder)

    def _mapped(self, document: Table, checked: Callable[[str, Table], Path]) -> RunTable:
        folder = RunFolder(document.run)

        def path(name: str) -> Path:
            try:
                return checked(name, document)
            except NotFound as error:
                raise Damaged(name, "does not exist, although its table is complete") from error

        with ThreadPoolExecutor(THREADS, "table") as pool:
            files = list(pool.map(path, map(folder.table_file, range(document.files))))
            clusters = path(folder.table_clusters) if document.compared else None
        try:
            return RunTable(document, files, clusters)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise Damaged(folder.table, f"has files that cannot be read ({first_line(error)})") from error

    def _in_place(self, name: str, document: Table) -> Path:
        file = self._storage.file(name)
        assert file is not None
        check(self._storage.sha256(name), document.digests, name)
        return file

    def _downloaded(self, name: str, document: Table) -> Path:
        file = self._cache / document.run / file_name(name)
        if _sha256(file) == document.digests[file_name(name)]:
            return file
        file.parent.mkdir(exist_ok=True)
        # A killed process leaves it, and the next one replaces it: only one process downloads at a time.
        part = file.with_suffix(".part")
        hash = hashlib.sha256()
        with part.open("wb") as target:
            for chunk in self._storage.chunks(name):
                hash.update(chunk)
                target.write(chunk)
        check(hash.hexdigest(), document.digests, name)
        return part.replace(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lets one process at a time download or delete."""
        with self._translated():
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self._cache / "lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PermanentError(f"cannot keep a table in {self._cache}: {os_reason(error)}") from error


def _sha256(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        return None
