"""Files of one Job on rented machines:

<job>/job.json       the Job as Kubernetes would store it, without its status
<job>/indexes.json   the state of each completion index
<job>/<i>.log        log of index i, all attempts
<job>/lock           locked while a controller advances the Job
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from controller.backends.files import lock, read_job, read_json, write_json
from controller.backends.skypilot.attempts import IndexState, IndexStep

NEVER = datetime.min.replace(tzinfo=UTC)


class IndexesFile(TypedDict):
    """An `indexes.json`. The names are in the files of runs, so they stay."""

    looked: datetime
    indexes: dict[Annotated[str, Field(pattern="^[0-9]+$")], dict[str, Any]]


@dataclass(frozen=True)
class StoredJob:
    """A Job and the state of its indexes."""

    job: dict[str, Any]
    indexes: dict[int, IndexState]

    @property
    def ended(self) -> bool:
        return all(index.step is IndexStep.DONE for index in self.indexes.values())


class JobFolder:
    """The files of one Job."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name

    @property
    def exists(self) -> bool:
        return self._path.is_dir()

    def read(self) -> StoredJob | None:
        job, document = read_job(self._path), self._indexes()
        if job is None or document is None:
            return None
        name = str(self._path / "indexes.json")
        indexes = {
            int(number): IndexState.from_json(entry, f"index {number} in {name}")
            for number, entry in document["indexes"].items()
        }
        return StoredJob(job, indexes)

    def checked_at(self) -> datetime:
        """The time of the last check of its tasks, by any controller."""
        document = self._indexes()
        return document["looked"] if document else NEVER

    def _indexes(self) -> IndexesFile | None:
        return read_json(self._path / "indexes.json", IndexesFile)

    def write_job(self, job: Mapping[str, Any]) -> None:
        write_json(self._path / "job.json", job)

    def write_indexes(self, indexes: Mapping[int, IndexState], checked_at: datetime = NEVER) -> None:
        entries = {number: index.to_json() for number, index in indexes.items()}
        write_json(self._path / "indexes.json", {"looked": checked_at.isoformat(), "indexes": entries})

    def append_log(self, index: int, text: str) -> None:
        with (self._path / f"{index}.log").open("a") as log:
            log.write(text)

    def read_log(self, index: int) -> str:
        file = self._path / f"{index}.log"
        return file.read_text() if file.exists() else ""

    def remove(self) -> None:
        shutil.rmtree(self._path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Waits until no other controller works on the Job."""
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / "lock").open("w") as file:
            lock(file, fcntl.LOCK_EX)
            yield
