"""The texts of a shard: chooses them, encodes them and writes them, after all parts of the shard.

They are captions and labels of the shard's own images, and everyday captions where these are too few."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import nsmallest
from itertools import chain, cycle, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from embedder.overlap import batched
from imgsearch.captions import CAPTIONS, LABELS, PROMPT, random_order, texts_in
from imgsearch.encoder import Encoder
from imgsearch.runs import parts, tables, texts
from imgsearch.runs.digests import Damaged, digest, file_name
from imgsearch.runs.layout import RunFolder
from imgsearch.runs.texts import Origin, Text
from imgsearch.stage import check_stopping
from imgsearch.storage import Storage
from imgsearch.vectors import Vectors

IMAGES_PER_TEXT = 32
"""A text takes the model about as long as an image, so that the texts add at most about 3 % to the time of a shard."""
EVERYDAY = Path(__file__).with_name("everyday_captions.txt")
"""Texts that people may search for in any photos, one in a line."""
MAX_CHARS = 300
"""A longer text is cut: a model reads its first 77 tokens or so."""


class ShardTexts:
    """The texts of one shard in the run folder. The same parts give the same texts."""

    def __init__(
        self, storage: Storage, folder: RunFolder, shard: int, *, encoder: Encoder, stopping: threading.Event
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._shard = shard
        self._encoder = encoder
        self._stopping = stopping

    def write(self, *, images: int, part_count: int, shards: int) -> dict[str, str]:
        """Writes the texts, and returns the digest of their file by its name; a shard with few images has none.

        `images`: the vectors in the parts of the shard. `shards`: those of the run. Raises Interrupted between two
        calls of the model."""
        most = -(-texts.MOST_TEXTS // shards)
        count = min(images // IMAGES_PER_TEXT, most)
        if not count:
            return {}
        chosen = choose(self._metadata(part_count), everyday(self._shard * most), count=count, shard=self._shard)
        data, name = texts.to_bytes(chosen, self._encoded(chosen)), self._folder.texts(self._shard)
        if not self._storage.create(name, data):
            # By another process of this shard: its model may round in another way, and its done.json has this digest.
            existing = self._storage.get(name)
            if _is_readable(existing, name, dim=self._encoder.dim):
                data = existing
            else:
                self._storage.put(name, data)
        return {file_name(name): digest(data)}

    def _metadata(self, part_count: int) -> Iterator[dict[str, Any]]:
        """The metadata of all images. From the parts: an earlier process may have written some of them."""
        for part in range(part_count):
            name = self._folder.part(self._shard, part)
            table, _ = parts.from_bytes(self._storage.get(name), name)
            yield from map(tables.decode_metadata, table["metadata"].to_pylist())

    def _encoded(self, chosen: Sequence[Text]) -> Vectors:
        def encode(batch: Sequence[Text]) -> Vectors:
            check_stopping(self._stopping)
            return self._encoder.encode_texts([text.text for text in batch])

        with ThreadPoolExecutor(self._encoder.workers, "encode") as pool:
            return np.concatenate([*pool.map(encode, batched(chosen, lambda: self._encoder.batch))])


def _is_readable(data: bytes, name: str, *, dim: int) -> bool:
    try:
        texts.from_bytes(data, name, dim=dim)
    except Damaged:
        return False
    return True


def choose(metadata: Iterable[Mapping[str, Any]], others: Iterable[str], *, count: int, shard: int) -> list[Text]:
    """`count` different texts: as many captions as labels of the images with this metadata, and `others` where these
    are too few. Each shard has another choice, because many shards may have the same labels."""
    found: dict[Origin, set[str]] = {"caption": set(), "label": set()}
    for row in metadata:
        found["caption"] |= {text[:MAX_CHARS] for text in _first_texts(row, CAPTIONS)}
        found["label"] |= {PROMPT.format(text[:MAX_CHARS]) for text in _first_texts(row, LABELS)}
    samples = [
        [
            Text(text, origin)
            for text in nsmallest(count, found[origin], key=lambda text: random_order(f"{shard} {text}"))
        ]
        for origin in found
    ]
    own = [text for pair in zip_longest(*samples) for text in pair if text]
    candidates = chain(own, (Text(text, "everyday") for text in others))
    return [*islice({text.text: text for text in candidates}.values(), count)]


def everyday(start: int) -> Iterator[str]:
    """All everyday captions of the list in this package, in random order from number `start` on."""
    ordered = sorted(EVERYDAY.read_text("utf-8").splitlines(), key=random_order)
    return islice(cycle(ordered), start % len(ordered), start % len(ordered) + len(ordered))


def _first_texts(row: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """The texts of the first of these fields that has some."""
    return next((found for field in fields if (found := texts_in(row.get(field)))), [])
