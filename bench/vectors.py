"""Synthetic embedded runs, as the embedder writes them, without images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from embedder.overlap import batched
from embedder.parts import Draft, Finished, Parts, Progress, Row
from imgsearch.encoder import Encoder
from imgsearch.runs import parts, texts
from imgsearch.runs.digests import digest, file_name
from imgsearch.runs.documents import Plan, ShardDone
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from imgsearch.stores import Record
from imgsearch.stores.records import record
from imgsearch.vectors import Vectors

CLUSTERS = 200
SPREAD = 0.04
"""The standard deviation of each dimension around the centre of a cluster. Neighbours have a cosine of about 0.55."""
PART_IMAGES = 2_000


@dataclass(frozen=True)
class Origin:
    """The encoder that the metadata of a part names."""

    model: str = "none"
    fingerprint: str = "none"
    preprocessing: str = "none"
    dim: int = 512


def write(
    storage: Storage,
    run: str,
    count: int,
    origin: Origin,
    rows: Iterable[Row] | None = None,
    *,
    text_vectors: Vectors | None = None,
) -> None:
    """Writes an embedded run of one shard. The name of the run is also that of its index. `rows`: its `count` images;
    by default vectors in clusters. `text_vectors`: those of its texts, if it has any. The plan comes last: a run with a
    plan is complete."""
    folder = RunFolder(run)
    writer = Parts(storage, folder, 0, encoder=cast(Encoder, origin))
    progress = Progress()
    for part, part_rows in enumerate(batched(_rows(count, origin.dim) if rows is None else rows, lambda: PART_IMAGES)):
        draft = Draft()
        for row in part_rows:
            draft.add(Finished(row, changed=False))
        progress = progress.with_part(*writer.write(part, draft))
    digests = dict(progress.digests)
    if text_vectors is not None:
        data = texts.to_bytes([texts.Text(f"text {row}", "caption") for row in range(len(text_vectors))], text_vectors)
        storage.put(folder.texts(0), data)
        digests[file_name(folder.texts(0))] = digest(data)
    shard: dict[str, Any] = {"images": count, "bytes": 0, "model": origin.model}
    done = ShardDone(
        shard=0,
        bad=0,
        parts=progress.parts,
        fingerprint=origin.fingerprint,
        dim=origin.dim,
        seconds=0,
        digests=digests,
        **shard,
    )
    storage.put(folder.done(0), done.to_json())
    plan = Plan(run=run, index=run, source="/photos", shards=1, part_images=PART_IMAGES, **shard)
    storage.put(folder.plan, plan.to_json())


def records(storage: Storage, run: str) -> list[Record]:
    """The records that ingest makes from such a run."""
    folder = RunFolder(run)
    records = []
    for part in range(ShardDone.from_json(storage.get(folder.done(0)), run).parts):
        table, _ = parts.from_bytes(storage.get(folder.part(0, part)), run)
        records += [record(row, run=run, shard=0, part=part) for row in parts.rows(table)]
    return records


def _rows(count: int, dim: int) -> Iterator[Row]:
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLUSTERS, dim), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    for number in range(count):
        label = int(random.integers(CLUSTERS))
        vector = centres[label] + SPREAD * random.standard_normal(dim, np.float32)
        metadata = {"label": f"class {label}", "year": 2000 + number % 25}
        yield Row(f"{number:08d}.jpg", "", metadata, vector / np.linalg.norm(vector), 500, 375, b"\0")
