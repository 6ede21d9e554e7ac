"""The names of the objects in a run folder.

    runs/<run>/plan/00042.parquet              the items of one shard (tables.ITEMS)
    runs/<run>/plan/dropped.parquet            of an update: keys of the images that it removes or replaces
    runs/<run>/plan.json                       documents.Plan: written last, created once, never rewritten
    runs/<run>/shards/00042/part-00003.parquet the vectors of one part (see parts); marks the part as complete
    runs/<run>/shards/00042/thumbs-00003.tar   the thumbnails of that part
    runs/<run>/shards/00042/bad-00003.parquet  the images of that part that could not be used
    runs/<run>/shards/00042/texts.parquet      texts with their vectors, to measure the recall (see texts)
    runs/<run>/shards/00042/done.json          documents.ShardDone: written last, read first
    runs/<run>/damaged/<run>/00042.txt         a shard that ingest found to be damaged; deleted when it is repaired
    runs/<run>/table/00042.arrow               rows of the table of the run: the images of its collection, by ingest
    runs/<run>/table/clusters.arrow            the clusters of these rows, where a search uses them
    runs/<run>/table.json                      documents.Table: written after the files of the table
    runs/<run>/bad.csv                         every image that could not be used: key, stage, reason
    runs/<run>/facets.json                     documents.Facets: the values of the metadata, with their counts
    runs/<run>/map.json                        documents.Map: a sample of the images, each with a point on a plane
    runs/<run>/map.webp                        their thumbnails, as tiles of one image
    runs/<run>/report.json                     documents.Report: the whole run, written last of all

`Storage` reads and writes them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from imgsearch.errors import UsageError

RUN_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""A run id is part of Kubernetes names and of collection names, so it is a short DNS label."""


@dataclass(frozen=True)
class RunFolder:
    """Keys of one run's objects, relative to the storage URI."""

    run: str

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run):
            raise UsageError(f"invalid run id {self.run!r}: use at most 40 lower-case letters, digits and dashes")

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
    def table(self) -> str:
        return f"{self.root}/table.json"

    @property
    def table_files(self) -> str:
        """The folder of the table's files."""
        return f"{self.root}/table"

    @property
    def table_clusters(self) -> str:
        return f"{self.table_files}/clusters.arrow"

    def table_file(self, number: int) -> str:
        return f"{self.table_files}/{number:05d}.arrow"

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

    def texts(self, shard: int) -> str:
        return f"{self.shard(shard)}/texts.parquet"

    def done(self, shard: int) -> str:
        return f"{self.shard(shard)}/done.json"

    @property
    def damaged_shards(self) -> str:
        return f"{self.root}/damaged"

    def damaged(self, run: str, shard: int) -> str:
        """The mark of a damaged shard: of this run, or of a run that this run updates."""
        return f"{self.damaged_shards}/{run}/{shard:05d}.txt"


def collection_name(index: str, run: str) -> str:
    """The collection that a run fills."""
    return f"{index}-{run}"


def image_id(key: str) -> str:
    """The id of the image with this source key: the same in every run of the same source.

    The first 128 bits of SHA-256 over the key, in hex: 10**9 images collide with a chance of 10**-21.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
