"""Writes the parts of a shard, every 2 000 images or so, and counts those that an earlier process has written.

A part holds consecutive images of the shard in plan order, so a restart needs to know only how many images the
complete parts hold. The thumbnails and bad images are written first. The Parquet file is written last, and only if it
does not exist: it marks the part as complete, and a second process on the same shard cannot replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch.encoder import Encoder
from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.runs import parts, tables
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import BadRow, Header, PartRow, ThumbnailArchive
from imgsearch.storage import Storage
from imgsearch.vectors import Vector


@dataclass(frozen=True)
class Row:
    """One image that has become a vector."""

    key: str
    etag: str
    metadata: Mapping[str, Any]
    vector: Vector
    width: int
    height: int
    thumbnail: bytes


@dataclass(frozen=True)
class Progress:
    """The counts of the complete parts of a shard."""

    parts: int = 0
    images: int = 0
    bad: int = 0

    @property
    def done(self) -> int:
        return self.images + self.bad

    def with_part(self, *, images: int, bad: int) -> Progress:
        """The counts with one more part."""
        return Progress(self.parts + 1, self.images + images, self.bad + bad)


VECTOR_BLOCK = 500
"""Vectors in a block."""


class Draft:
    """An unfinished part in memory. Thumbnails are added to the archive at once, and vectors to a few large blocks:
    thousands of small objects that live until the part is complete would fragment the heap, and the large blocks of the
    model would not fit any more."""

    def __init__(self) -> None:
        self.rows: list[PartRow] = []
        self.bad: list[BadRow] = []
        self.thumbnails = ThumbnailArchive()
        self._block = np.empty((0, 0), np.float16)

    def __len__(self) -> int:
        return len(self.rows) + len(self.bad)

    def add(self, image: Row | BadRow) -> None:
        if isinstance(image, BadRow):
            self.bad.append(image)
            return
        id = image_id(image.key)
        self.rows.append(
            {
                "id": id,
                "key": image.key,
                "etag": image.etag,
                "embedding": self._copied(image.vector),
                "width": image.width,
                "height": image.height,
                "thumb_offset": self.thumbnails.add(id, image.thumbnail),
                "thumb_length": len(image.thumbnail),
                "metadata": tables.encode_metadata(image.metadata),
            }
        )

    def _copied(self, vector: Vector) -> NDArray[np.float16]:
        row = len(self.rows) % VECTOR_BLOCK
        if row == 0:
            self._block = np.empty((VECTOR_BLOCK, len(vector)), np.float16)  # the rows keep the earlier blocks alive
        copy: NDArray[np.float16] = self._block[row]
        copy[:] = vector
        return copy


class Parts:
    """The parts of one shard in the run folder."""

    def __init__(self, storage: Storage, folder: RunFolder, shard: int, *, encoder: Encoder) -> None:
        self._storage = storage
        self._folder = folder
        self._shard = shard
        self._empty = Header(encoder.model, encoder.fingerprint, encoder.preprocessing, encoder.dim, images=0, bad=0)

    def progress(self) -> Progress:
        """Counts the complete parts. Raises PermanentError if one of them was made with another model."""
        progress = Progress()
        names = set(self._storage.keys(self._folder.shard(self._shard)))
        while (name := self._folder.part(self._shard, progress.parts)) in names:
            _, header = parts.from_bytes(self._storage.get(name), name)
            for field in ("model", "fingerprint", "dim"):
                earlier, current = getattr(header, field), getattr(self._empty, field)
                if earlier != current:
                    raise PermanentError(
                        f"{name} was made with another model ({field} {earlier}, now {current}): "
                        "use the same model, or index again with a new --run"
                    )
            progress = progress.with_part(images=header.images, bad=header.bad)
        return progress

    def write(self, part: int, draft: Draft) -> None:
        """Writes a draft as part number `part`.

        Raises TemporaryError if another process has written that part meanwhile."""
        self._storage.put(self._folder.thumbs(self._shard, part), draft.thumbnails.finish())
        self._storage.put(self._folder.bad(self._shard, part), parts.bad_to_bytes(draft.bad))
        header = replace(self._empty, images=len(draft.rows), bad=len(draft.bad))
        if not self._storage.create(self._folder.part(self._shard, part), parts.to_bytes(draft.rows, header)):
            raise TemporaryError(f"another process is embedding shard {self._shard}: a retry continues after its parts")
