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

from imgsearch.encoder import Encoder
from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.runs import tables
from imgsearch.runs.layout import RunFolder, image_id
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


VECTOR_BLOCK = 500


class Draft:
    """A part in the making. Thumbnails go into the archive, and vectors into a few large blocks, as they come:
    thousands of small ones, kept until the part is whole, would leave the heap full of holes that the model's large
    blocks do not fit into."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        """Of schema.embeddings."""
        self.bad: list[dict[str, str]] = []
        """Of schema.BAD."""
        self._block = np.empty((0, 0), np.float16)
        self._sink = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._sink, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def __len__(self) -> int:
        return len(self.rows) + len(self.bad)

    def add(self, entry: Row | Bad) -> None:
        if isinstance(entry, Bad):
            self.bad.append(vars(entry))
            return
        id = image_id(entry.key)
        self.rows.append(
            {
                "id": id,
                "key": entry.key,
                "etag": entry.etag,
                "embedding": self._place(entry.vector),
                "width": entry.width,
                "height": entry.height,
                "thumb_offset": self._keep(f"{id}.webp", entry.thumbnail),
                "thumb_length": len(entry.thumbnail),
                "metadata": tables.encode_metadata(entry.metadata),
            }
        )

    def archive(self) -> memoryview:
        """The finished tar; nothing can be added then."""
        self._tar.close()
        return self._sink.getbuffer()

    def _place(self, vector: NDArray[np.float32]) -> NDArray[np.float16]:
        row = len(self.rows) % VECTOR_BLOCK
        if row == 0:
            self._block = np.empty((VECTOR_BLOCK, len(vector)), np.float16)  # its rows keep the one before alive
        place: NDArray[np.float16] = self._block[row]
        place[:] = vector
        return place

    def _keep(self, name: str, thumbnail: bytes) -> int:
        """Puts a thumbnail into the tar; returns where in it its bytes begin."""
        member = tarfile.TarInfo(name)
        member.size = len(thumbnail)
        self._tar.addfile(member, io.BytesIO(thumbnail))
        return self._tar.offset - _padded(member.size)


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
        self._schema = tables.embeddings(encoder.dim)

    def progress(self) -> Progress:
        """Counts the whole parts; raises PermanentError where they were made with other weights."""
        found = Progress()
        there = set(self._storage.keys(self._folder.shard(self._shard)))
        while (name := self._folder.part(self._shard, found.parts)) in there:
            _, about = tables.from_bytes(self._storage.get(name), name)
            differing = [field for field in ("model", "fingerprint", "dim") if about.get(field) != self._about[field]]
            if differing:
                raise PermanentError(
                    f"{name} was made with another model ({differing[0]} {about.get(differing[0])}, now "
                    f"{self._about[differing[0]]}): use the same model, or index under a new --run"
                )
            found = Progress(found.parts + 1, found.images + int(about["images"]), found.bad + int(about["bad"]))
        return found

    def write(self, part: int, draft: Draft) -> None:
        """Writes a draft as part number `part`.

        Raises TemporaryError where another process has written that part meanwhile."""
        self._storage.put(self._folder.thumbs(self._shard, part), draft.archive())
        self._storage.put(
            self._folder.bad(self._shard, part),
            tables.to_bytes(tables.table(tables.BAD, draft.bad)),
        )
        about = {**self._about, "images": str(len(draft.rows)), "bad": str(len(draft.bad))}
        data = tables.to_bytes(tables.table(self._schema, draft.rows), about)
        if not self._storage.create(self._folder.part(self._shard, part), data):
            raise TemporaryError(f"another process is embedding shard {self._shard}; a retry goes on after its parts")


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
