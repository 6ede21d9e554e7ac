"""The run folder: what each object is called, and what its JSON documents say.

    runs/<run>/plan/00042.parquet              the items of one shard (schema.ITEMS)
    runs/<run>/plan/dropped.parquet            of an update: image keys whose rows are not taken over (schema.DROPPED)
    runs/<run>/plan.json                       Plan: written last, created once, never rewritten
    runs/<run>/shards/00042/part-00003.parquet the vectors of one part (schema.embeddings); the part's own marker
    runs/<run>/shards/00042/thumbs-00003.tar   thumbnails of that part
    runs/<run>/shards/00042/bad-00003.parquet  images of that part that could not be used (schema.BAD)
    runs/<run>/shards/00042/done.json          ShardDone: written last, read first
    runs/<run>/bad.csv                         every image that could not be used: key, stage, reason
    runs/<run>/facets.json                     Facets: what the fields of the metadata hold, and how often
    runs/<run>/map.json                        Map: a sample of the images, each with its place on a plane
    runs/<run>/map.webp                        their thumbnails, as tiles of one image
    runs/<run>/report.json                     Report: the whole run, written last of all

No I/O here: `Storage` reads and writes, these are the names and the shapes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Literal, Self, TypedDict

from imgsearch.errors import PermanentError, UsageError

RUN_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""A run id is part of Kubernetes names and of collection names, so it is a short DNS label."""


@dataclass(frozen=True)
class RunFolder:
    """Keys of one run's objects, relative to the storage URI."""

    run: str

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run):
            raise UsageError(f"{self.run!r} cannot be a run id: use at most 40 lower-case letters, digits and dashes")

    @property
    def root(self) -> str:
        return f"runs/{self.run}"

    @property
    def plan(self) -> str:
        return f"{self.root}/plan.json"

    @property
    def report(self) -> str:
        return f"{self.root}/report.json"

    @property
    def bad_list(self) -> str:
        return f"{self.root}/bad.csv"

    @property
    def facets(self) -> str:
        return f"{self.root}/facets.json"

    @property
    def map(self) -> str:
        return f"{self.root}/map.json"

    @property
    def sprite(self) -> str:
        return f"{self.root}/map.webp"

    @property
    def dropped(self) -> str:
        return f"{self.root}/plan/dropped.parquet"

    def items(self, shard: int) -> str:
        return f"{self.root}/plan/{shard:05d}.parquet"

    def shard(self, shard: int) -> str:
        return f"{self.root}/shards/{shard:05d}"

    def part(self, shard: int, part: int) -> str:
        return f"{self.shard(shard)}/part-{part:05d}.parquet"

    def thumbs(self, shard: int, part: int) -> str:
        return f"{self.shard(shard)}/thumbs-{part:05d}.tar"

    def bad(self, shard: int, part: int) -> str:
        return f"{self.shard(shard)}/bad-{part:05d}.parquet"

    def done(self, shard: int) -> str:
        return f"{self.shard(shard)}/done.json"


class Document:
    """A JSON document of the run folder; unknown or missing fields are an error, never a guess."""

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Raises PermanentError, naming the object, where `data` is not such a document."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise PermanentError(
                f"{name} is not a {cls.__name__} of this version of imgsearch ({error}); index again under a new --run"
            ) from error


@dataclass(frozen=True)
class Plan(Document):
    """`plan.json`: what the run will do. Fixed once written."""

    run: str
    index: str
    source: str
    model: str
    shards: int
    images: int
    """How many images the shards hold together; ingest must account for each."""
    bytes: int
    part_images: int
    base: str | None = None
    """For an update: the run whose rows are kept where their image has not changed."""
    removed: int = 0
    """For an update: how many images of the base are gone from the source."""
    kept: int = 0
    """For an update: how many images of the base are taken over as they are."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What the listing passed over, and how often: file endings that no image has, links to folders."""


@dataclass(frozen=True)
class ShardDone(Document):
    """`done.json` of a shard: its counts, and which model made it."""

    shard: int
    images: int
    """Vectors written, all parts together."""
    bad: int
    parts: int
    model: str
    fingerprint: str
    """Of the weights; see Encoder.fingerprint."""
    dim: int
    bytes: int
    """Bytes read from the source."""
    seconds: float
    """Wall-clock seconds of the process that finished it; earlier, killed ones are not counted."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of work by stage (read, decode, encode, write), summed over threads, likewise."""
    device: str = "cpu"


@dataclass(frozen=True)
class Report(Document):
    """`report.json`: what became of every image of the run."""

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
    """Searchable, those kept from the base included."""
    bad: int
    kept: int
    removed: int
    skipped: dict[str, int]
    bad_reasons: dict[str, int]
    """The most frequent ones, with how many images each."""
    bad_examples: list[dict[str, str]]
    embed_seconds: float
    """Of all shards together, as if one process had done them."""
    embed_stages: dict[str, float]
    """Seconds of work by stage, summed over all threads of all shards."""
    embed_bytes: int
    """Bytes read from the source."""
    ingest_seconds: float
    ingest_stages: dict[str, float]
    """Seconds of work by stage (read, store, verify, publish, facets, map), of the last ingest; the first two overlap,
    and facets are counted between them."""
    vectors_added: int
    """By the last ingest; fewer than `images` where an earlier one had begun."""
    verified: dict[str, int]


class FacetValue(TypedDict):
    """One value of a field, or of the lists in it."""

    value: str | bool | int | float
    count: int
    """How many images have it."""


class Facet(TypedDict):
    """What one field of the source's metadata holds, over all images."""

    field: str
    type: Literal["text", "number", "bool", "list"]
    images: int
    """How many have the field."""
    distinct: int | None
    """How many values there are; None: more than are counted."""
    values: list[FacetValue]
    """The most frequent first."""
    min: float | None
    max: float | None
    """Of numbers; None for other types."""


@dataclass(frozen=True)
class Facets(Document):
    """`facets.json`: what a search can be filtered by."""

    run: str
    index: str
    images: int
    fields: list[Facet]
    """By name."""


class Point(TypedDict):
    """Where an image of the map lies: `x` from the left, `y` from the top, both in 0…1."""

    id: str
    x: float
    y: float


@dataclass(frozen=True)
class Map(Document):
    """`map.json`: a fair sample of the images, like beside like. Written after its sprite, `map.webp`."""

    run: str
    index: str
    images: int
    """Of the whole run."""
    tile: int
    """Width and height of a tile of the sprite, in pixels."""
    columns: int
    """Tile i is in column i % columns, row i // columns."""
    points: list[Point]
    """In the order of the tiles."""


def collection_name(index: str, run: str) -> str:
    """The collection that a run fills."""
    return f"{index}-{run}"


def image_id(key: str) -> str:
    """The id of the image with this source key: the same in every run of the same source.

    The first 128 bits of SHA-256 over the key, in hex: 10**9 images collide with a chance of 10**-21.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
