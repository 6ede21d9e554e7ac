"""Checks the files of an HNSW index before Chroma reads them: hnswlib does not, and a wrong number in them makes it
read foreign memory, which ends the process.

The format is that of Chroma's fork of hnswlib, version 1 (https://github.com/chroma-core/hnswlib, hnswalg.h), in little
endian:

    header.bin       the struct HEADER
    data_level0.bin  for each element: the number of its links (u16), flags (u16), 2 M links (u32), its vector, which
                     has length 1 (f32), its label (u64)
    length.bin       for each element: the length of its vector before it was normalised (f32)
    link_lists.bin   for each element: the number of bytes that follow (u32), which is 0 for most; then for each level
                     above 0: the number of links (u16), flags (u16), M links (u32)
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER = struct.Struct("<i6Qii3QdQ")
VERSION = 1
METADATA = "index_metadata.pickle"
"""Chroma's own file beside those of hnswlib: the ids of the elements."""
DELETED = 1
"""The only flag: the element was deleted."""
CHUNK_BYTES = 64 * 2**20
"""Bytes of data_level0.bin that are checked at a time."""
TOLERANCE = 1e-3
"""Of the length of a vector, in float32."""
Numbers = npt.NDArray[np.uint32]


class Damage(Exception):
    """The problem, as the end of a sentence that begins with the name of the file."""


@dataclass(frozen=True)
class Header:
    """header.bin."""

    version: int
    level0_offset: int
    capacity: int
    elements: int
    element_bytes: int
    label_offset: int
    vector_offset: int
    top_level: int
    entry: int
    """The element where a search begins."""
    links: int
    """M: the most links of an element on a level above 0."""
    links0: int
    """The most links of an element on level 0."""
    links_again: int
    level_factor: float
    construction: int
    """The number of candidates when an element is added."""

    @property
    def dim(self) -> int:
        return (self.label_offset - self.vector_offset) // 4

    @property
    def level_bytes(self) -> int:
        """The bytes of one level above 0 of one element."""
        return 4 + 4 * self.links


def check(folder: Path, *, dim: int | None) -> str | None:
    """The damage of the index in `folder`, as `FILE: PROBLEM`; None if none is found. `dim` None: it may be any.

    It finds missing and shortened files, numbers that would make hnswlib read foreign memory, and vectors and lengths
    that cannot be ours, since all of ours have length 1. It does not find a vector whose length is still 1 or a link to
    the wrong element. It reads all files but index_metadata.pickle, which Chroma checks."""
    name = "header.bin"
    try:
        header = _header((folder / name).read_bytes(), dim)
        name = "length.bin"
        _check_lengths(_read(folder / name, np.dtype("<f4")), header)
        name = "link_lists.bin"
        levels = _check_upper_links(_read(folder / name, np.dtype("<u4")), header)
        name = "data_level0.bin"
        _check_elements(folder / name, header)
        if header.elements and levels[header.entry] != header.top_level:
            name = "header.bin"
            raise Damage("invalid numbers")
        name = METADATA
        if not (folder / name).stat().st_size:
            raise Damage("too short")
    except FileNotFoundError:
        return f"{name}: missing"
    except Damage as error:
        return f"{name}: {error}"
    return None


def _header(data: bytes, dim: int | None) -> Header:
    if len(data) < HEADER.size:
        raise Damage("too short")
    header = Header(*HEADER.unpack_from(data))
    links = header.links
    is_valid = (
        header.version == VERSION
        and header.level0_offset == 0
        and header.elements <= header.capacity < 2**31
        and 2 <= links < 2**15
        and header.links_again == links
        and header.links0 == 2 * links
        and header.vector_offset == 4 + 4 * header.links0
        and header.label_offset > header.vector_offset
        and header.element_bytes == header.label_offset + 8
        and (dim is None or header.dim == dim)
        and abs(header.level_factor * np.log(links) - 1) < TOLERANCE
        and 1 <= header.construction < 2**20
        and (header.elements == 0 or (0 <= header.entry < header.elements and 0 <= header.top_level < 64))
    )
    if not is_valid:
        raise Damage("invalid numbers")
    return header


def _read(file: Path, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    if file.stat().st_size % dtype.itemsize:
        raise Damage("too short")
    return np.fromfile(file, dtype)


def _check_lengths(lengths: npt.NDArray[np.generic], header: Header) -> None:
    if len(lengths) < header.elements:
        raise Damage("too short")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        are_one = np.abs(lengths[: header.elements].astype(np.float32) - 1) < TOLERANCE
    if not are_one.all():
        raise Damage("invalid numbers")


def _check_upper_links(words: npt.NDArray[np.generic], header: Header) -> npt.NDArray[np.int32]:
    """Checks link_lists.bin; returns the highest level of each element."""
    levels = np.zeros(header.elements, np.int32)
    starts: list[tuple[int, int]] = []
    for element, start, size in _link_lists(words, header.elements):
        if size % header.level_bytes or size // header.level_bytes > header.top_level:
            raise Damage("invalid numbers")
        levels[element] = size // header.level_bytes
        starts.append((element, start))
    for level in range(1, header.top_level + 1):
        first = [start + (level - 1) * header.level_bytes // 4 for element, start in starts if levels[element] >= level]
        if not first:
            continue
        rows = words[np.add.outer(np.array(first), np.arange(1 + header.links))].astype(np.uint32)
        _check_links(rows, header.elements, at_least=level, levels=levels)
    return levels


def _link_lists(words: npt.NDArray[np.generic], elements: int) -> Iterator[tuple[int, int, int]]:
    """(element, position of its lists in words, their size in bytes) of the elements that have lists."""
    nonzero = np.flatnonzero(words).tolist()
    element = position = following = 0
    while element < elements:
        following = bisect_left(nonzero, position, following)
        end = nonzero[following] if following < len(nonzero) else len(words)
        element += end - position  # elements without lists
        if element >= elements:
            break
        if end == len(words):
            raise Damage("too short")
        size = int(words[end])
        position = end + 1 + size // 4
        if size % 4 or position > len(words):
            raise Damage("too short")
        yield element, end + 1, size
        element += 1


def _check_elements(file: Path, header: Header) -> None:
    if file.stat().st_size < header.elements * header.element_bytes:
        raise Damage("too short")
    step = max(1, CHUNK_BYTES // header.element_bytes)
    labels = np.empty(header.elements, np.uint64)
    with file.open("rb") as source:
        for first in range(0, header.elements, step):
            count = min(step, header.elements - first)
            rows = np.fromfile(source, np.uint8, count * header.element_bytes).reshape(count, header.element_bytes)
            _check_links(rows[:, : header.vector_offset].view("<u4"), header.elements)
            vectors = rows[:, header.vector_offset : header.label_offset].view("<f4")
            with np.errstate(invalid="ignore", over="ignore"):
                are_one = np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < TOLERANCE
            if not are_one.all():
                raise Damage("invalid numbers")
            labels[first : first + count] = rows[:, header.label_offset :].view("<u8")[:, 0]
    labels.sort()
    if np.any(labels[1:] == labels[:-1]):
        raise Damage("invalid numbers")


def _check_links(
    rows: Numbers, elements: int, *, at_least: int = 0, levels: npt.NDArray[np.int32] | None = None
) -> None:
    """`rows` (n, 1 + links): the number of links with the flags, then the links."""
    counts, flags, links = rows[:, 0] & 0xFFFF, rows[:, 0] >> 16, rows[:, 1:]
    used = np.arange(links.shape[1])[None] < counts[:, None]
    if counts.max() > links.shape[1] or np.any(flags & ~np.uint32(DELETED)) or np.any(links[used] >= elements):
        raise Damage("invalid numbers")
    if levels is not None and np.any(levels[links[used]] < at_least):
        raise Damage("invalid numbers")
