"""What a run has embedded: its own shards and those of the runs that it updates, read part by part and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from imgsearch.errors import NotFound, PermanentError
from imgsearch.runs import parts, tables
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.runs.parts import BadRow
from imgsearch.storage import Storage


@dataclass(frozen=True)
class Shard:
    """One embedded shard whose rows count."""

    folder: RunFolder
    done: ShardDone
    dropped: frozenset[str]
    """Keys that a later update removed or embedded anew."""


class Embedded:
    """Reads the run folders of a storage. Each method raises PermanentError where something is not as it must be."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def plan(self, run: str) -> Plan:
        folder = RunFolder(run)
        try:
            return Plan.from_json(self._storage.get(folder.plan), folder.plan)
        except NotFound as error:
            raise PermanentError(f"run {run} has no plan.json: plan it first") from error

    def shards(self, plan: Plan, dropped: frozenset[str] = frozenset()) -> Iterator[Shard]:
        """The run's own shards, and those of the runs that it updates."""
        folder = RunFolder(plan.run)
        absent = []
        for number in range(plan.shards):
            name = folder.done(number)
            try:
                done = ShardDone.from_json(self._storage.get(name), name)
            except NotFound:
                absent.append(number)
                continue
            yield Shard(folder, done, dropped)
        if absent:
            raise PermanentError(
                f"{len(absent)} of {plan.shards} shards of run {plan.run} have no done.json (shard "
                f"{', '.join(map(str, absent[:5]))}{', …' if len(absent) > 5 else ''}): embed them first, by giving "
                "the same run-pipeline command again"
            )
        if plan.base is not None:
            table, _ = tables.from_bytes(self._storage.get(folder.dropped), folder.dropped)
            gone = dropped | frozenset(table["key"].to_pylist())
            yield from self.shards(self.plan(plan.base), gone)

    def part(self, shard: Shard, number: int) -> pa.Table:
        """The rows of one part that still count."""
        name = shard.folder.part(shard.done.shard, number)
        table, header = parts.from_bytes(self._bytes(name), name)
        if (header.fingerprint, header.dim) != (shard.done.fingerprint, shard.done.dim):
            raise PermanentError(f"{name} was made with another model than its shard: index again under a new --run")
        if shard.dropped:
            table = table.filter(pc.invert(pc.is_in(table["key"], pa.array(list(shard.dropped)))))
        return table

    def bad(self, shard: Shard, number: int) -> list[BadRow]:
        """The bad images of one part that still count."""
        name = shard.folder.bad(shard.done.shard, number)
        table, _ = tables.from_bytes(self._bytes(name), name)
        return [row for row in table.to_pylist() if row["key"] not in shard.dropped]

    def _bytes(self, name: str) -> bytes:
        """An object of a shard that is done."""
        try:
            return self._storage.get(name)
        except NotFound as error:
            raise PermanentError(f"{name} is gone, though its shard is done: index again under a new --run") from error


def same_model(shards: Sequence[Shard]) -> ShardDone:
    """The first shard's done.json, which says the same of the model as all others. Raises PermanentError otherwise."""
    if not shards:
        raise PermanentError("the run has no shard: there is nothing to publish")
    first = shards[0].done
    for shard in shards:
        for field in ("fingerprint", "dim"):
            if getattr(shard.done, field) != getattr(first, field):
                raise PermanentError(
                    f"{shard.folder.done(shard.done.shard)} has {field} {getattr(shard.done, field)}, "
                    f"shard {first.shard} has {getattr(first, field)}: one index needs one model; "
                    "index again under a new --run"
                )
    return first
