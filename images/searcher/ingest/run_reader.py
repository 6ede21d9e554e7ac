"""The embedded rows of a run: its own shards and those of the runs that it updates, checked part by part."""

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
    """An embedded shard that belongs to the run."""

    folder: RunFolder
    done: ShardDone
    dropped: frozenset[str]
    """Keys of rows that a later update has removed or replaced."""


class RunReader:
    """Reads the run folders of a storage. Each method raises PermanentError for files that are missing or invalid."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def plan(self, run: str) -> Plan:
        folder = RunFolder(run)
        try:
            return Plan.from_json(self._storage.get(folder.plan), folder.plan)
        except NotFound as error:
            raise PermanentError(f"run {run} has no plan.json; plan it first") from error

    def shards(self, plan: Plan, dropped: frozenset[str] = frozenset()) -> Iterator[Shard]:
        """The shards of the run, and those of the runs that it updates."""
        folder = RunFolder(plan.run)
        missing = []
        for number in range(plan.shards):
            name = folder.done(number)
            try:
                done = ShardDone.from_json(self._storage.get(name), name)
            except NotFound:
                missing.append(number)
                continue
            yield Shard(folder, done, dropped)
        if missing:
            raise PermanentError(
                f"{len(missing)} of {plan.shards} shards of run {plan.run} have no done.json (shard "
                f"{', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}); repeat the "
                "run-pipeline command to embed them"
            )
        if plan.base is not None:
            table, _ = tables.from_bytes(self._storage.get(folder.dropped), folder.dropped)
            dropped |= frozenset(table["key"].to_pylist())
            yield from self.shards(self.plan(plan.base), dropped)

    def part(self, shard: Shard, number: int) -> pa.Table:
        """The rows of one part that later updates have kept."""
        name = shard.folder.part(shard.done.shard, number)
        table, header = parts.from_bytes(self._bytes(name), name)
        if (header.fingerprint, header.dim) != (shard.done.fingerprint, shard.done.dim):
            raise PermanentError(f"{name} has another model than its shard; index again with a new --run")
        if shard.dropped:
            table = table.filter(pc.invert(pc.is_in(table["key"], pa.array(list(shard.dropped)))))
        return table

    def bad(self, shard: Shard, number: int) -> list[BadRow]:
        """The bad images of one part that later updates have kept."""
        name = shard.folder.bad(shard.done.shard, number)
        return [row for row in parts.bad_from_bytes(self._bytes(name), name) if row.key not in shard.dropped]

    def _bytes(self, name: str) -> bytes:
        """An object of a shard that is done."""
        try:
            return self._storage.get(name)
        except NotFound as error:
            raise PermanentError(
                f"{name} does not exist, although its shard is done; index again with a new --run"
            ) from error


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
