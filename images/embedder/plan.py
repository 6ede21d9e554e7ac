"""The plan of a run: which items there are, cut into shards of about the same work. No pixel is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedder.items import Items
from imgsearch.errors import UsageError
from imgsearch.runs import tables
from imgsearch.runs.layout import Plan, RunFolder
from imgsearch.settings import RunSettings, Settings
from imgsearch.sources import Source
from imgsearch.storage import Storage

IMAGE_COST = 2**14
"""What an image costs besides its bytes, in bytes: a shard of a million icons is no small shard."""
DROPPED_ROWS = 100_000
"""How many keys of `dropped.parquet` are in memory at a time."""

Row = Mapping[str, Any]
"""Of schema.ITEMS."""


def plan(settings: Settings, storage: Storage, source: Source) -> Plan:
    """Lists `source` and writes the plan, its shards' items first; a plan that is there is returned as it is.

    The shards of an update hold what is new or changed since the base run; one that finds nothing new and nothing
    gone is not written.
    Raises UsageError where the plan that is there is of something else, or the base is."""
    run = settings.run
    asked: dict[str, Any] = {
        "source": source.uri,
        "model": run.model,
        "index": run.index,
        "part_images": run.part_images,
        "base": run.base,
    }
    key = RunFolder(run.id).plan
    if not storage.exists(key):
        made = _list(run, storage, source, asked)
        if not made.shards and not made.removed:
            storage.delete(RunFolder(run.id).root)  # nothing to do is no run: the next update looks again
            return made
        storage.create(key, made.to_json())
    return _checked(read_plan(storage, run.id), asked, advice="use another --run")


def read_plan(storage: Storage, run: str) -> Plan:
    """Raises NotFound where the run has none."""
    key = RunFolder(run).plan
    return Plan.from_json(storage.get(key), key)


def cut(rows: Iterable[Row], *, shards: int, items: int, work: int) -> Iterator[tuple[int, Row]]:
    """Each of `rows`, in their order, with the number of its shard; all `shards` are of about the same work.

    `items` and `work` (bytes, with IMAGE_COST an image) are sums over `rows`; none of the shards is empty."""
    shard, held = 0, 0
    for number, row in enumerate(rows):
        cost = row["size"] + row["images"] * IMAGE_COST
        left = shards - shard
        full = held + cost / 2 > work / left  # its middle lies behind the end of an equal share of the rest
        if held and left > 1 and (full or items - number < left):
            shard, work, held = shard + 1, work - held, 0
        held += cost
        yield shard, row


def _list(run: RunSettings, storage: Storage, source: Source, asked: Mapping[str, Any]) -> Plan:
    folder = RunFolder(run.id)
    with Items() as items:
        if run.base:
            for earlier in _chain(storage, run.base, {name: asked[name] for name in ("source", "model")}):
                items.add_base(_rows(storage, earlier), _dropped(storage, earlier))
        items.add(source.items(), source.metadata())
        totals = items.totals()
        shards = min(math.ceil(totals.images / run.shard_images), totals.items)
        work = totals.bytes + totals.images * IMAGE_COST
        pairs = cut(items.wanted(), shards=shards, items=totals.items, work=work)
        for shard, group in groupby(pairs, key=itemgetter(0)):
            table = tables.table(tables.ITEMS, [row for _, row in group])
            storage.put(folder.items(shard), tables.to_bytes(table))
        if run.base:
            storage.put(folder.dropped, _dropped_table(items.dropped()))
        return Plan(
            run=run.id,
            shards=shards,
            images=totals.images,
            bytes=totals.bytes,
            removed=items.removed(),
            kept=items.kept(),
            skipped=dict(sorted(source.skipped.items())),
            **asked,
        )


def _checked(planned: Plan, asked: Mapping[str, Any], *, advice: str) -> Plan:
    for name, value in asked.items():
        there = getattr(planned, name)
        if there != value:
            raise UsageError(f"run {planned.run} was planned with {name} {there!r}, not {value!r}: {advice}")
    return planned


def _chain(storage: Storage, base: str, asked: Mapping[str, Any]) -> list[Plan]:
    """The plan of `base`, behind those that it is based on, the first of which indexed everything."""
    chain: list[Plan] = []
    name: str | None = base
    while name:
        if not storage.exists(RunFolder(name).plan):
            raise UsageError(
                f"run {name}, from which the update starts, has no plan: index everything, without --update"
            )
        chain.append(_checked(read_plan(storage, name), asked, advice="index everything, without --update"))
        name = chain[-1].base
    return chain[::-1]


def _rows(storage: Storage, planned: Plan) -> Iterator[Row]:
    for shard in range(planned.shards):
        key = RunFolder(planned.run).items(shard)
        yield from tables.from_bytes(storage.get(key), key)[0].to_pylist()


def _dropped(storage: Storage, planned: Plan) -> Iterator[str]:
    if planned.base:
        key = RunFolder(planned.run).dropped
        for batch in tables.from_bytes(storage.get(key), key)[0].to_batches():
            yield from batch.column("key").to_pylist()


def _dropped_table(keys: Iterator[str]) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, tables.DROPPED, compression="zstd") as writer:
        while some := list(islice(keys, DROPPED_ROWS)):
            writer.write_table(pa.table({"key": some}, tables.DROPPED))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
