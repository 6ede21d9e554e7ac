"""Writes the parts of a shard, every 2 000 images or so, and counts those that an earlier process has written.

A part holds consecutive images of the shard in plan order, so a restart needs to know only how many images the
complete parts hold. The thumbnails and bad images are written first. The Parquet file is written last, and only if it
does not exist: it marks the part as complete, and a second process on the same shard cannot replace it. Each file gets
a digest when it is written. A damaged part and the parts behind it are deleted, and made again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.markers import Markers
from imgsearch.encoder import Encoder
from imgsearch.errors import PermanentError, TemporaryError
from imgsearch.runs import parts, tables
from imgsearch.runs.digests import Damaged, digest, file_name
from imgsearch.runs.layout import RunFolder, image_id
from imgsearch.runs.parts import BadRow, Header, PartRow, ThumbnailArchive
from imgsearch.storage import Storage
from imgsearch.vectors import Vector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One image that has become a vector."""

    key: str
    etag: str
    """Of the version that was read."""
    metadata: Mapping[str, Any]
    vector: Vector
    width: int
    height: int
    thumbnail: bytes


@dataclass(frozen=True)
class Finished:
    """One image of the shard at its end."""

    row: Row | BadRow
    changed: bool
    """Whether its source was changed after the listing; see ShardDone.changed."""


@dataclass(frozen=True)
class Progress:
    """The complete parts of a shard."""

    parts: int = 0
    images: int = 0
    bad: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of the files that have one; see ShardDone.digests."""
    changed: tuple[str, ...] = ()
    """See ShardDone.changed."""

    @property
    def done(self) -> int:
        return self.images + self.bad

    def with_part(self, header: Header, digests: Mapping[str, str]) -> Progress:
        """The parts with one more."""
        return Progress(
            self.parts + 1,
            self.images + header.images,
            self.bad + header.bad,
            {**self.digests, **digests},
            self.changed + header.changed,
        )


VECTOR_BLOCK = 500
"""Vectors in a block."""


class Draft:
    """An unfinished part in memory. Thumbnails are added to the archive at once, and vectors to a few large blocks:
    thousands of small objects that live until the part is complete would fragment the heap, and the large blocks of the
    model would not fit any more."""

    def __init__(self) -> None:
        self.rows: list[PartRow] = []
        self.bad: list[BadRow] = []
        self.changed: list[str] = []
        self.thumbnails = ThumbnailArchive()
        self._block = np.empty((0, 0), np.float16)

    def __len__(self) -> int:
        return len(self.rows) + len(self.bad)

    def add(self, finished: Finished) -> None:
        image = finished.row
        if finished.changed:
            self.changed.append(image.key)
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
        """The complete parts, up to the first one that is missing or damaged. Deletes the parts behind them.

        Raises PermanentError if one of them was made with another model."""
        progress = Progress()
        markers = Markers(self._storage, self._folder, self._shard)
        names = markers.names()
        while (name := self._folder.part(self._shard, progress.parts)) in names:
            data = self._storage.get(name)
            try:
                _, header = parts.from_bytes(data, name)
            except Damaged as error:
                log.warning("%s: it is made again", error.sentence)
                break
            self._check_model(header, name)
            progress = progress.with_part(header, self._digests(progress.parts, header, digest(data)))
        markers.delete(names, progress.parts)
        return progress

    def write(self, part: int, draft: Draft) -> tuple[Header, dict[str, str]]:
        """Writes a draft as part number `part`. Returns its header, and the digests of its files.

        Raises TemporaryError if another process has written that part meanwhile."""
        marker = self._folder.part(self._shard, part)
        if self._storage.exists(marker):  # before its other files are replaced
            raise self._taken()
        thumbnails, bad = draft.thumbnails.finish(), parts.bad_to_bytes(draft.bad)
        self._storage.put(self._folder.thumbs(self._shard, part), thumbnails)
        self._storage.put(self._folder.bad(self._shard, part), bad)
        header = replace(
            self._empty,
            images=len(draft.rows),
            bad=len(draft.bad),
            thumbs_digest=digest(thumbnails),
            bad_digest=digest(bad),
            changed=tuple(draft.changed),
        )
        data = parts.to_bytes(draft.rows, header)
        if not self._storage.create(marker, data):
            raise self._taken()
        return header, self._digests(part, header, digest(data))

    def _taken(self) -> TemporaryError:
        return TemporaryError(f"another process is embedding shard {self._shard}: a retry continues after its parts")

    def _check_model(self, header: Header, name: str) -> None:
        for field_name in ("model", "fingerprint", "dim"):
            earlier, current = getattr(header, field_name), getattr(self._empty, field_name)
            if earlier != current:
                raise PermanentError(
                    f"{name} was made with another model ({field_name} {earlier}, now {current}): "
                    "use the same model, or index again with a new --run"
                )

    def _digests(self, part: int, header: Header, part_digest: str) -> dict[str, str]:
        digests = {
            self._folder.part(self._shard, part): part_digest,
            self._folder.thumbs(self._shard, part): header.thumbs_digest,
            self._folder.bad(self._shard, part): header.bad_digest,
        }
        return {file_name(key): value for key, value in digests.items() if value is not None}
