"""The plan of a run: the items of the source, in shards of about equal work. No image is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedder.items import CHANGED, Items, Row, to_item
from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.runs import digests, tables
from imgsearch.runs.digests import digest, file_name
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import RunSettings, Settings
from imgsearch.sources import Item, Source
from imgsearch.storage import Storage
from imgsearch.typed_json import DamagedDocument

IMAGE_COST = 2**14
"""The cost of an image beside its size, in bytes: a million icons are as much work as larger images."""
DROPPED_ROWS = 100_000
"""Keys of `dropped.parquet` in memory at a time."""


def plan(settings: Settings, storage: Storage, source: Source) -> Plan:
    """Lists `source` and writes the plan, the items of its shards first; returns an existing plan as it is.

    The shards of an update hold the items that are new or changed since the base run. An update without changes
    writes no plan.
    Raises UsageError if the existing plan, or the base, has another source, model or index."""
    run = settings.run
    inputs: dict[str, Any] = {
        "source": source.uri,
        "model": run.model,
        "index": run.index,
        "part_images": run.part_images,
        "base": run.base,
    }
    key = RunFolder(run.id).plan
    if not storage.exists(key):
        new = _list(run, storage, source, inputs)
        if not new.shards and not new.removed:
            storage.delete(RunFolder(run.id).root)  # without a plan, the next update lists again
            return new
        storage.create(key, new.to_json())
    return _checked(read_plan(storage, run.id), inputs, advice="use another --run")


def read_plan(storage: Storage, run: str) -> Plan:
    """Raises NotFound if the run has none."""
    key = RunFolder(run).plan
    return Plan.from_json(storage.get(key), key)


def cut(rows: Iterable[Row], *, shards: int, items: int, work: int) -> Iterator[tuple[int, Row]]:
    """Each of `rows`, in their order, with the number of its shard. The `shards` have about equal work, and none is
    empty.

    `items` and `work` (bytes, plus IMAGE_COST for each image) are sums over `rows`."""
    shard, shard_work = 0, 0
    for number, row in enumerate(rows):
        cost = row["size"] + row["images"] * IMAGE_COST
        remaining = shards - shard
        full = shard_work + cost / 2 > work / remaining  # the middle of the item is beyond an equal share of the rest
        if shard_work and remaining > 1 and (full or items - number < remaining):
            shard, work, shard_work = shard + 1, work - shard_work, 0
        shard_work += cost
        yield shard, row


def _list(run: RunSettings, storage: Storage, source: Source, inputs: dict[str, Any]) -> Plan:
    folder = RunFolder(run.id)
    with Items(source.image_keys) as items:
        if run.base:
            for earlier in _chain(storage, run.base, {name: inputs[name] for name in ("source", "model")}):
                rows = _rows(storage, earlier, source.image_keys)
                items.add_base(rows, _dropped(storage, earlier))
        items.add(source.items(), source.metadata())
        totals = items.totals()
        shards = min(math.ceil(totals.images / run.shard_images), totals.items)
        work = totals.bytes + totals.images * IMAGE_COST
        pairs = cut(items.wanted(), shards=shards, items=totals.items, work=work)
        written: dict[str, str] = {}

        def write(key: str, data: bytes) -> None:
            storage.put(key, data)
            written[file_name(key)] = digest(data)

        for shard, group in groupby(pairs, key=itemgetter(0)):
            table = tables.table(tables.ITEMS, [row for _, row in group])
            write(folder.items(shard), tables.to_bytes(table))
        if run.base:
            write(folder.dropped, _dropped_table(items.dropped()))
        return Plan(
            run=run.id,
            shards=shards,
            images=totals.images,
            bytes=totals.bytes,
            removed=items.removed(),
            kept=items.kept(),
            skipped=dict(sorted(source.skipped.items())),
            digests=written,
            **inputs,
        )


def _checked(planned: Plan, inputs: dict[str, Any], *, advice: str) -> Plan:
    for name, value in inputs.items():
        planned_value = getattr(planned, name)
        if planned_value != value:
            raise UsageError(f"run {planned.run} was planned with {name} {planned_value!r}, not {value!r}: {advice}")
    return planned


def _chain(storage: Storage, base: str, inputs: dict[str, Any]) -> list[Plan]:
    """The plan of `base` and of all runs before it, starting with the one that indexed everything."""
    chain: list[Plan] = []
    run: str | None = base
    while run:
        if not storage.exists(RunFolder(run).plan):
            raise UsageError(f"run {run}, the base of the update, has no plan: index everything, without --update")
        chain.append(_checked(read_plan(storage, run), inputs, advice="index everything, without --update"))
        run = chain[-1].base
    return chain[::-1]


def _rows(storage: Storage, planned: Plan, image_keys: Callable[[Item], Iterable[str]]) -> Iterator[Row]:
    """The items of a run. Those with an image that was not read as it is listed have an etag that no item has."""
    for shard in range(planned.shards):
        key = RunFolder(planned.run).items(shard)
        changed = _changed(storage, planned, shard)
        for row in tables.items_from_bytes(_checked_bytes(storage, planned, key), key).to_pylist():
            if changed and not changed.isdisjoint(image_keys(to_item(row))):
                row["etag"] = CHANGED
            yield row


def _changed(storage: Storage, planned: Plan, shard: int) -> frozenset[str]:
    """See ShardDone.changed."""
    key = RunFolder(planned.run).done(shard)
    try:
        return frozenset(ShardDone.from_json(storage.get(key), key).changed)
    except NotFound:  # ingest will refuse the update, until the run's own command has made the shard again
        return frozenset()
    except DamagedDocument as error:
        raise PermanentError(
            f"{error.problem}: run `controller cleanup {planned.run}`, then give the command "
            f"of run {planned.run} until it succeeds. It makes shard {shard} again"
        ) from error


def _dropped(storage: Storage, planned: Plan) -> Iterator[str]:
    if planned.base:
        key = RunFolder(planned.run).dropped
        for batch in tables.dropped_from_bytes(_checked_bytes(storage, planned, key), key).to_batches():
            yield from batch.column("key").to_pylist()


def _checked_bytes(storage: Storage, planned: Plan, key: str) -> bytes:
    """A table of the plan; raises Damaged."""
    data = storage.get(key)
    digests.check(digest(data), planned.digests, key)
    return data


def _dropped_table(keys: Iterator[str]) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, tables.DROPPED, compression="zstd", write_page_checksum=True) as writer:
        while page := list(islice(keys, DROPPED_ROWS)):
            writer.write_table(pa.table({"key": page}, tables.DROPPED))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
