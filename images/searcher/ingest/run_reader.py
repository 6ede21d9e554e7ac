"""The embedded rows of a run: its own shards and those of the runs that it updates, checked part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np
import pyarrow as pa

from imgsearch.captions import random_order
from imgsearch.errors import NotFound, PermanentError
from imgsearch.part_files import PartFiles
from imgsearch.runs import digests, tables
from imgsearch.runs.digests import Damaged, digest
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.runs.parts import BadRow
from imgsearch.storage import Storage
from imgsearch.typed_json import DamagedDocument
from imgsearch.vectors import Vector, Vectors


@dataclass(frozen=True)
class Shard:
    """An embedded shard that belongs to the run."""

    folder: RunFolder
    done: ShardDone
    dropped: frozenset[str]
    """Keys of rows that a later update has removed or replaced."""

    @property
    def name(self) -> str:
        """The key of its done.json."""
        return self.folder.done(self.done.shard)


@dataclass(frozen=True)
class Part:
    """One part of a shard."""

    kept: pa.Table
    """The rows that later updates have kept."""
    images: int
    """The number of all its rows."""


class DamagedShard(PermanentError):
    """A shard with a file that is missing, or not as it was written. The embedder can make it again."""

    def __init__(self, run: str, shard: int, sentence: str) -> None:
        super().__init__(
            f"{sentence}: run `controller cleanup {run}`, then give the command of run {run} until it succeeds. It "
            f"makes the damaged parts of shard {shard} again"
        )
        self.run = run
        self.shard = shard
        self.sentence = sentence
        """The file and the problem."""


class RunReader:
    """Reads the run folders of a storage. Each method raises DamagedShard for a file of a shard that is not as it was
    written, and PermanentError for other files that are missing or invalid."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def plan(self, run: str) -> Plan:
        folder = RunFolder(run)
        try:
            return Plan.from_json(self._storage.get(folder.plan), folder.plan)
        except NotFound as error:
            raise PermanentError(f"run {run} has no plan.json; plan it first") from error

    def shards(self, plan: Plan, dropped: frozenset[str] = frozenset(), *, is_base: bool = False) -> Iterator[Shard]:
        """The shards of the run, and those of the runs that it updates: each is the base of a later run."""
        folder = RunFolder(plan.run)
        missing = []
        for number in range(plan.shards):
            name = folder.done(number)
            try:
                done = ShardDone.from_json(self._storage.get(name), name)
            except NotFound:
                missing.append(number)
                continue
            except DamagedDocument as error:
                raise DamagedShard(plan.run, number, error.problem) from error
            if done.shard != number:
                raise DamagedShard(plan.run, number, f"{name} is that of shard {done.shard}")
            yield Shard(folder, done, dropped)
        if missing and is_base:  # its own command has finished, so it embedded them
            raise DamagedShard(plan.run, missing[0], f"{folder.done(missing[0])} does not exist")
        if missing:
            raise PermanentError(
                f"{len(missing)} of {plan.shards} shards of run {plan.run} have no done.json (shard "
                f"{', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}); repeat the "
                "run-pipeline command to embed them"
            )
        if plan.base is not None:
            data = self._storage.get(folder.dropped)
            digests.check(digest(data), plan.digests, folder.dropped)
            dropped |= frozenset(tables.dropped_from_bytes(data, folder.dropped)["key"].to_pylist())
            yield from self.shards(self.plan(plan.base), dropped, is_base=True)

    def check(self, run: str) -> None:
        """Reads all files of all shards of the run."""
        for shard in self.shards(self.plan(run)):
            self.bad(shard)
            self.texts([shard], 0)
            for number in range(shard.done.parts):
                self.part(shard, number)

    def part(self, shard: Shard, number: int) -> Part:
        """One part. Reads its thumbnails, too, to check them."""
        files = self._files(shard)
        with _named(shard):
            table = files.rows(number)
            files.check_thumbnails(number, table)
        return Part(self._kept(table, shard), len(table))

    def rows(self, shard: Shard, number: int) -> pa.Table:
        """The rows of one part that later updates have kept."""
        with _named(shard):
            return self._kept(self._files(shard).rows(number), shard)

    def tables(self, shards: Iterable[Shard]) -> Iterator[pa.Table]:
        """The rows of each part that later updates have kept, without parts that have none."""
        for shard in shards:
            for number in range(shard.done.parts):
                if len(table := self.rows(shard, number)):
                    yield table

    def bad(self, shard: Shard) -> list[BadRow]:
        """The bad images of the shard that later updates have kept."""
        files = self._files(shard)
        with _named(shard):
            rows = [row for number in range(shard.done.parts) for row in files.bad(number)]
        check_count(shard, "bad images", counted=len(rows), expected=shard.done.bad)
        return [row for row in rows if row.key not in shard.dropped]

    def texts(self, shards: Sequence[Shard], most: int) -> Vectors:
        """The vectors (n, dim) of `most` different texts of the shards, or of all if they are fewer. The same shards
        give the same texts."""
        vectors: dict[str, Vector] = {}
        for shard in shards:
            with _named(shard):
                vectors |= self._files(shard).texts()
        chosen = [vectors[text] for text in nsmallest(most, vectors, key=random_order)]
        return np.array(chosen, np.float32).reshape(len(chosen), same_model(shards).dim)

    def _files(self, shard: Shard) -> PartFiles:
        return PartFiles(self._storage, shard.folder, shard.done)

    def _kept(self, table: pa.Table, shard: Shard) -> pa.Table:
        if not shard.dropped:
            return table
        # Not by Arrow's is_in, which makes a table of all dropped keys, perhaps a million, for each part.
        return table.filter(pa.array([key not in shard.dropped for key in table["key"].to_pylist()]))


def check_count(shard: Shard, things: str, *, counted: int, expected: int) -> None:
    """Raises DamagedShard where the parts of a shard do not have as many things as its done.json."""
    if counted != expected:
        sentence = f"{shard.name} counts {expected} {things}, but the parts have {counted}"
        raise DamagedShard(shard.folder.run, shard.done.shard, sentence)


@contextmanager
def _named(shard: Shard) -> Iterator[None]:
    try:
        yield
    except Damaged as error:
        raise DamagedShard(shard.folder.run, shard.done.shard, error.sentence) from error


def same_model(shards: Sequence[Shard]) -> ShardDone:
    """The first shard's done.json. Raises PermanentError where the shards have different models, or there is none."""
    if not shards:
        raise PermanentError("the run has no shards, so there is nothing to publish")
    first = shards[0].done
    for shard in shards:
        for field in ("fingerprint", "dim"):
            if getattr(shard.done, field) != getattr(first, field):
                raise PermanentError(
                    f"{shard.folder.done(shard.done.shard)} has {field} {getattr(shard.done, field)}, "
                    f"shard {first.shard} has {getattr(first, field)}; an index needs a single model: "
                    "index again with a new --run"
                )
    return first
