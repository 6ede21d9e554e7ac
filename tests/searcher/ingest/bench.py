"""Embedded runs in a storage, and a store to ingest them into."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from imgsearch.runs import parts
from imgsearch.runs import texts as text_files
from imgsearch.runs.digests import digest, file_name
from imgsearch.runs.documents import Plan, Report, ShardDone
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import BadRow, Header, PartRow
from imgsearch.runs.texts import Text
from imgsearch.settings import IndexSettings
from imgsearch.storage import Storage
from imgsearch.stores import Hit, Record, VectorStore
from imgsearch.stores.filters import Filter
from imgsearch.vectors import Vectors
from searcher.ingest.job import Ingest
from searcher.ingest.metrics import IngestMetrics
from searcher.ingest.samples import vector_of
from tests.fakes import InMemoryStore
from tests.searcher.library import picture

DIM = 8
THUMBNAIL = picture("green", format="WEBP")


class CountingStore(InMemoryStore):
    """A store that counts what is added, and that can lose, change or not find some of it."""

    def __init__(self) -> None:
        super().__init__()
        self.added_ids: list[str] = []
        self.probe_count = 0
        self.lost_ids: set[str] = set()
        self.changed_ids: set[str] = set()
        self.unfound_ids: set[str] = set()
        self.stop: tuple[int, threading.Event] | None = None

    def missing(self, collection: str, ids: Sequence[str]) -> set[str]:
        self.probe_count += len(ids)
        return super().missing(collection, ids)

    def add(self, collection: str, records: Sequence[Record]) -> None:
        self.added_ids += [record.id for record in records]
        kept = [record for record in records if record.id not in self.lost_ids]
        super().add(collection, [self._changed(record) for record in kept])
        if self.stop and len(self.added_ids) >= self.stop[0]:
            self.stop[1].set()

    def search(
        self, collection: str, queries: Vectors, *, k: int, where: Filter | None = None, vectors: bool = False
    ) -> list[list[Hit]]:
        rows = super().search(collection, queries, k=k, where=where, vectors=vectors)
        return [[hit for hit in row if hit.id not in self.unfound_ids] for row in rows]

    def reopen(self) -> CountingStore:
        return self

    def _changed(self, record: Record) -> Record:
        return replace(record, vector=-vector_of(record)) if record.id in self.changed_ids else record


class IngestBench:
    """A storage with embedded runs in it, and a store."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path
        self.storage = Storage(tmp_path.as_uri())
        self.store = CountingStore()
        self.stopping = threading.Event()
        self.metrics = IngestMetrics()

    def write_run(
        self,
        run: str,
        keys: Sequence[str],
        *,
        bad: Sequence[str] = (),
        shards: int = 2,
        part_images: int = 3,
        digests: bool = True,
        texts: Mapping[str, Vectors] = MappingProxyType({}),
        **plan: Any,
    ) -> RunFolder:
        """Writes a run as the embedder leaves it. Without `digests`: as an earlier version left it. `texts`: with their
        vectors."""
        folder = RunFolder(run)
        for shard in range(shards):
            written: dict[str, str] = {}
            shard_keys, shard_bad = keys[shard::shards], bad[shard::shards]
            part_count = max(1, -(-len(shard_keys) // part_images))
            for number in range(part_count):
                written |= self.write_part(
                    folder,
                    shard,
                    number,
                    shard_keys[number * part_images :][:part_images],
                    shard_bad if number == 0 else [],
                )
            if shard_texts := [*texts][shard::shards]:
                vectors = np.stack([texts[text] for text in shard_texts])
                data = text_files.to_bytes([Text(text, "caption") for text in shard_texts], vectors)
                self.storage.put(folder.texts(shard), data)
                written[file_name(folder.texts(shard))] = digest(data)
            shard_document = ShardDone(
                shard, len(shard_keys), len(shard_bad), part_count, "m", "f1", DIM, 100, 1.5, {"encode": 1.0}
            )
            document = replace(shard_document, digests=written if digests else {}).to_json()
            self.storage.put(folder.done(shard), document)
        plan_document = Plan(
            run=run,
            index="photos",
            source="/photos",
            model="m",
            shards=shards,
            images=len(keys) + len(bad),
            bytes=100,
            part_images=part_images,
            **plan,
        )
        self.storage.put(folder.plan, plan_document.to_json())
        return folder

    def write_part(
        self,
        folder: RunFolder,
        shard: int,
        number: int,
        keys: Sequence[str],
        bad: Sequence[str],
        fingerprint: str = "f1",
    ) -> dict[str, str]:
        """Returns the digests of the files."""
        rows: list[PartRow] = [
            {
                "id": image_id(key),
                "key": key,
                "etag": "",
                "embedding": vector(key),
                "width": 4,
                "height": 3,
                "thumb_offset": 512,
                "thumb_length": len(THUMBNAIL),
                "metadata": json.dumps({"label": key[0]}),
            }
            for key in keys
        ]
        header = Header("m", fingerprint, "", DIM, images=len(rows), bad=len(bad))
        bad_rows = [BadRow(key, "decode", "truncated", etag="") for key in bad]
        files = {
            folder.thumbs(shard, number): bytes(512) + THUMBNAIL,
            folder.bad(shard, number): parts.bad_to_bytes(bad_rows),
            folder.part(shard, number): parts.to_bytes(rows, header),
        }
        for name, data in files.items():
            self.storage.put(name, data)
        return {file_name(name): digest(data) for name, data in files.items()}

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Changes an object as a failing disk or a person does."""
        self.storage.put(name, change(self.storage.get(name)))

    def ingest(
        self, run: str, *, year: int = 2026, store: VectorStore | None = None, recall: float = IndexSettings().recall
    ) -> Report:
        self.metrics = IngestMetrics()
        return Ingest(
            run,
            storage=self.storage,
            store=store or self.store,
            settings=IndexSettings(recall),
            metrics=self.metrics,
            stopping=self.stopping,
            now=lambda: datetime(year, 1, 1, tzinfo=UTC),
        ).run()[0]

    def stored_keys(self, collection: str) -> set[str]:
        keys = [f"{letter}{number}" for letter in "abcdxyz" for number in range(40)]
        return {str(r.internal["key"]) for r in self.store.get(collection, [image_id(key) for key in keys])}


def vector(key: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(list(key.encode())).normal(size=DIM).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values), np.float32)


A_KEYS = [f"a{number}" for number in range(20)]
B_KEYS = [f"b{number}" for number in range(5)]
