"""Parts of a shard: what the embedder writes every 2 000 images or so, and what a restart finds of them.

A part is a run of the shard's images in plan order, so all that a restart must know is how many images the whole
parts cover. Its thumbnails and bad images are put first, its Parquet file last and only if it is not there: that
file is the part's marker, and a second process on the same shard cannot replace it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch import schema
from imgsearch.encoder import Encoder
from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.layout import RunFolder, image_id
from imgsearch.storage import Storage


@dataclass(frozen=True)
class Row:
    """One image that has become a vector."""

    key: str
    etag: str
    metadata: Mapping[str, Any]
    vector: NDArray[np.float32]
    width: int
    height: int
    thumbnail: bytes


@dataclass(frozen=True)
class Bad:
    """One image that could not be used."""

    key: str
    etag: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """What the whole parts of a shard hold."""

    parts: int = 0
    images: int = 0
    bad: int = 0

    @property
    def done(self) -> int:
        return self.images + self.bad


class Parts:
    """The parts of one shard in the run folder."""

    def __init__(self, storage: Storage, folder: RunFolder, shard: int, *, encoder: Encoder) -> None:
        self._storage = storage
        self._folder = folder
        self._shard = shard
        self._about = {
            "model": encoder.model,
            "fingerprint": encoder.fingerprint,
            "preprocessing": encoder.preprocessing,
            "dim": str(encoder.dim),
        }
        self._schema = schema.embeddings(encoder.dim)

    def progress(self) -> Progress:
        """Counts the whole parts; raises PermanentError where they were made with other weights."""
        found = Progress()
        there = set(self._storage.keys(self._folder.shard(self._shard)))
        while (name := self._folder.part(self._shard, found.parts)) in there:
            _, about = schema.from_bytes(self._storage.get(name), name)
            differing = [field for field in ("model", "fingerprint", "dim") if about.get(field) != self._about[field]]
            if differing:
                raise PermanentError(
                    f"{name} was made with another model ({differing[0]} {about.get(differing[0])}, now "
                    f"{self._about[differing[0]]}): use the same model, or index under a new --run"
                )
            found = Progress(found.parts + 1, found.images + int(about["images"]), found.bad + int(about["bad"]))
        return found

    def write(self, part: int, entries: list[Row | Bad]) -> None:
        """Writes `entries`, in order, as part number `part`.

        Raises TemporaryError where another process has written that part meanwhile."""
        good = [entry for entry in entries if isinstance(entry, Row)]
        bad = [entry for entry in entries if isinstance(entry, Bad)]
        archive, places = _archive(good)
        self._storage.put(self._folder.thumbs(self._shard, part), archive)
        self._storage.put(
            self._folder.bad(self._shard, part),
            schema.to_bytes(schema.table(schema.BAD, [vars(entry) for entry in bad])),
        )
        rows = [
            {
                "id": image_id(row.key),
                "key": row.key,
                "etag": row.etag,
                "embedding": row.vector,
                "width": row.width,
                "height": row.height,
                "thumb_offset": offset,
                "thumb_length": len(row.thumbnail),
                "metadata": schema.encode_metadata(row.metadata),
            }
            for row, offset in zip(good, places, strict=True)
        ]
        about = {**self._about, "images": str(len(good)), "bad": str(len(bad))}
        data = schema.to_bytes(schema.table(self._schema, rows), about)
        if not self._storage.create(self._folder.part(self._shard, part), data):
            raise TemporaryError(f"another process is embedding shard {self._shard}; a retry goes on after its parts")


def _archive(rows: list[Row]) -> tuple[bytes, list[int]]:
    """A plain tar of the thumbnails, and where in it each one's bytes begin."""
    sink = io.BytesIO()
    places = []
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            member = tarfile.TarInfo(f"{image_id(row.key)}.webp")
            member.size = len(row.thumbnail)
            archive.addfile(member, io.BytesIO(row.thumbnail))
            places.append(archive.offset - _padded(member.size))
    return sink.getvalue(), places


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
