"""The JSON documents of a run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from imgsearch import typed_json
from imgsearch.typed_json import DamagedDocument

CHECKSUM = "checksum"
"""The last field of a document: the SHA-256 of the other fields, in hex. Documents of earlier versions have none."""
ADVICE = "restore it from a backup, or index again with a new --run"

Count = Annotated[int, Field(ge=0)]


class Document:
    """A JSON document of the run folder. A field that is unknown, missing or of another type is an error."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    def to_json(self) -> bytes:
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return json.dumps({**fields, CHECKSUM: _checksum(fields)}, indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Raises DamagedDocument, with the name of the object and the field, if `data` is not such a document, or if
        its values were changed after it was written."""
        fields = typed_json.parse(dict[str, Any], data, name, advice=ADVICE)
        checksum = fields.pop(CHECKSUM, None)
        document = typed_json.parse(cls, json.dumps(fields), name, advice=ADVICE)
        if checksum not in (None, _checksum(fields)):
            reason = f"field {CHECKSUM}: it is not that of the other fields"
            raise DamagedDocument(name, reason, advice=ADVICE)
        return document


def _checksum(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Plan(Document):
    """`plan.json`: the work of the run. It never changes."""

    run: str
    index: str
    source: str
    model: str
    shards: Count
    images: Count
    """The images of all shards. Ingest must account for each of them."""
    bytes: Count
    part_images: Count
    base: str | None = None
    """For an update: the run whose rows are kept for unchanged images."""
    removed: Count = 0
    """For an update: the number of images of the base that the source has no longer."""
    kept: Count = 0
    """For an update: the number of unchanged images of the base."""
    skipped: dict[str, int] = field(default_factory=dict)
    """The number of files that the listing skipped, by reason: other file extensions, links to folders."""
    digests: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of each table of the plan, in hex, by file name. Plans of earlier versions have none."""


@dataclass(frozen=True)
class ShardDone(Document):
    """`done.json` of a shard: its counts and its model."""

    shard: Count
    images: Count
    """The vectors in all parts."""
    bad: Count
    parts: Count
    model: str
    fingerprint: str
    """The fingerprint of the weights; see Encoder.fingerprint."""
    dim: Count
    bytes: Count
    """Bytes read from the source."""
    seconds: float
    """Wall-clock seconds of the process that finished the shard, without earlier processes."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of work by stage (read, decode, encode, write, texts), summed over the threads of the same process."""
    device: str = "cpu"
    digests: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of each file of the shard, in hex, by file name. A part of an earlier version has none."""
    changed: list[str] = field(default_factory=list)
    """The keys of the images that were not read as the plan lists them: the source was changed in between. The next
    update embeds them again."""


@dataclass(frozen=True)
class Table(Document):
    """`table.json`: the table of the run, which has a row for each image of its collection."""

    run: str
    rows: Count
    dim: Count
    files: Count
    fields: list[str]
    """The metadata fields that have columns."""
    all_fields: bool
    """Whether no image has another field."""
    digests: dict[str, str]
    """The SHA-256 of each file, in hex, by file name."""
    compared: Count = 0
    """The rows that a search compares for its first 100 results, in the clusters nearest to it: ingest measured the
    recall with them. 0: the table has no clusters, and the store is searched."""


QueryKind = Literal["images", "changed images", "texts"]


class RecallFigure(TypedDict):
    """Recall@k of the store against exact search, over a sample of queries."""

    queries: QueryKind
    k: int
    mean: float
    worst: float
    """The mean of the worst twentieth of the queries."""


@dataclass(frozen=True)
class Report(Document):
    """`report.json`: the outcome for every image of the run."""

    run: str
    index: str
    source: str
    model: str
    fingerprint: str
    dim: int
    collection: str
    published: str
    """UTC, ISO 8601."""
    shards: int
    images: int
    """Searchable images, with the images that the update kept."""
    bad: int
    kept: int
    removed: int
    skipped: dict[str, int]
    bad_reasons: dict[str, int]
    """The most frequent reasons, with the number of images."""
    bad_examples: list[dict[str, str]]
    embed_seconds: float
    """The sum over all shards."""
    embed_stages: dict[str, float]
    """Seconds of work by stage, summed over all threads of all shards."""
    embed_bytes: int
    """Bytes read from the source."""
    ingest_seconds: float
    ingest_stages: dict[str, float]
    """Seconds of work of the last ingest by stage (read, store, table, verify, recall, publish, facets, map). The first
    three overlap while the store is filled; facets are counted between them."""
    vectors_added: int
    """The vectors that the last ingest added; fewer than `images` if an earlier ingest was interrupted."""
    verified: dict[str, int]
    recall: list[RecallFigure] = field(default_factory=list)
    """Empty in a report of an earlier version, and where every search returns all images."""
    candidates: int = 100
    """Pointer.candidates. The default is that of an earlier version."""
    compared: Count = 0
    """Table.compared."""
    recall_warning: str = ""
    """A sentence about a recall below its target, with the difference and the solutions; empty if it reaches it."""


class FacetValue(TypedDict):
    """One value of a field, or of the lists in it."""

    value: str | bool | int | float
    count: int
    """The number of images with this value."""


class Facet(TypedDict):
    """The values of one field of the source's metadata, over all images."""

    field: str
    type: Literal["text", "number", "bool", "list"]
    images: int
    """The number of images with this field."""
    distinct: int | None
    """The number of distinct values; None: too many to count."""
    values: list[FacetValue]
    """The most frequent first."""
    min: int | float | None
    max: int | float | None
    """The smallest and the largest number; None for other types."""
    whole: NotRequired[bool | None]
    """Whether all numbers are whole, such as 3 or 3.0; None for other types. Earlier files do not have it."""


@dataclass(frozen=True)
class Facets(Document):
    """`facets.json`: the fields and values for filters."""

    run: str
    index: str
    images: int
    fields: list[Facet]
    """By name."""


class Point(TypedDict):
    """The point of an image on the map: `x` from the left, `y` from the top, both in 0…1."""

    id: str
    x: float
    y: float


@dataclass(frozen=True)
class Map(Document):
    """`map.json`: a random sample of the images on a plane; similar images are near each other. It is written after its
    sprite, `map.webp`."""

    run: str
    index: str
    images: int
    """The images of the whole run."""
    tile: int
    """Width and height of a tile of the sprite, in pixels."""
    columns: int
    """Tile i is in column i % columns, row i // columns."""
    points: list[Point]
    """In the order of the tiles."""
