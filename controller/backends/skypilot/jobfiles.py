"""Files of one Job on rented machines:

<job>/job.json       the Job as Kubernetes would store it, without its status
<job>/indexes.json   the state of each completion index
<job>/<i>.log        log of index i, all attempts
<job>/lock           locked while a controller advances the Job
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.backends.files import lock, write_json
from controller.backends.skypilot.attempts import IndexState, IndexStep

NEVER = datetime.min.replace(tzinfo=UTC)


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
        try:
            job = json.loads((self._path / "job.json").read_text())
            entries = json.loads((self._path / "indexes.json").read_text())["indexes"]
        except FileNotFoundError:
            return None
        return StoredJob(job, {int(number): IndexState.from_json(entry) for number, entry in entries.items()})

    def checked_at(self) -> datetime:
        """The time of the last check of its tasks, by any controller."""
        return datetime.fromisoformat(json.loads((self._path / "indexes.json").read_text())["looked"])

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
