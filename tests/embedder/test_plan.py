"""The plan of a run: shards of about the same work, the same every time, in little memory."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedder.plan import IMAGE_COST, cut, plan, read_plan
from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.runs import tables
from imgsearch.runs.digests import digest
from imgsearch.runs.documents import Plan
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import RunSettings, Settings
from imgsearch.sources import Item
from imgsearch.sources.values import Metadata
from imgsearch.storage import Storage


class FakeSource:
    """Items from a list. Reading pixels is an error: a plan does not."""

    def __init__(self, *items: Item, metadata: dict[str, Metadata] | None = None) -> None:
        self.uri = "fake"
        self.skipped = Counter({".txt files": 2})
        self._items = items
        self._metadata = metadata or {}

    def items(self) -> Iterator[Item]:
        yield from self._items

    def metadata(self) -> Iterator[tuple[str, Metadata]]:
        yield from self._metadata.items()

    def image_keys(self, item: Item) -> Iterator[str]:
        """Those of Parquet files."""
        yield from (f"{item.key}#{item.first + n}" for n in range(item.images)) if "parquet" in item.key else [item.key]

    def images(self, items: object, skip: int = 0) -> Any:
        raise AssertionError("no pixels in a plan")

    def read(self, key: str) -> Any:
        raise AssertionError("no pixels in a plan")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


def settings(**run: Any) -> Settings:
    base = RunSettings(id="r1", index="photos", model="tiny", shard_images=10)
    return Settings(run=dataclasses.replace(base, **run))


def photos(number: int, *, size: int = 1000) -> list[Item]:
    return [Item(f"{n:06}.png", size, etag=str(n)) for n in range(number)]


def groups(*images: int, path: str = "a.parquet", etag: str = "1") -> list[Item]:
    first = [sum(images[:n]) for n in range(len(images))]
    return [Item(path, 1000, etag, images=count, unit=n, first=first[n]) for n, count in enumerate(images)]


def rows(storage: Storage, run: str, shard: int) -> list[dict[str, Any]]:
    key = RunFolder(run).items(shard)
    table, _ = tables.from_bytes(storage.get(key), key)
    assert table.schema.equals(tables.ITEMS)
    return table.to_pylist()  # type: ignore[no-any-return]


def keys(storage: Storage, run: str, shard: int) -> list[str]:
    return [row["key"] for row in rows(storage, run, shard)]


def dropped_keys(storage: Storage, run: str) -> list[str]:
    key = RunFolder(run).dropped
    return tables.from_bytes(storage.get(key), key)[0].column("key").to_pylist()  # type: ignore[no-any-return]


def objects(storage: Storage) -> dict[str, bytes]:
    return {key: storage.get(key) for key in storage.keys("runs")}


class TestFullRun:
    def test_says_what_the_run_will_do(self, storage: Storage) -> None:
        folder = RunFolder("r1")
        assert plan(settings(), storage, FakeSource(*photos(25))) == Plan(
            run="r1",
            index="photos",
            source="fake",
            model="tiny",
            shards=3,
            images=25,
            bytes=25_000,
            part_images=2000,
            skipped={".txt files": 2},
            digests={f"{shard:05d}.parquet": digest(storage.get(folder.items(shard))) for shard in range(3)},
        )
        assert read_plan(storage, "r1").images == 25

    def test_every_item_is_in_one_shard_in_order(self, storage: Storage) -> None:
        source = FakeSource(*reversed(photos(25)), metadata={"000003.png": {"label": "cat"}})
        document = plan(settings(), storage, source)
        shards = [rows(storage, "r1", shard) for shard in range(document.shards)]
        assert [row["key"] for shard in shards for row in shard] == [item.key for item in photos(25)]
        assert [len(shard) for shard in shards] == [8, 9, 8]
        assert shards[0][3] == {
            "key": "000003.png",
            "size": 1000,
            "etag": "3",
            "images": 1,
            "unit": 0,
            "first": 0,
            "metadata": '{"label": "cat"}',
        }

    def test_metadata_without_a_file_is_planned_as_an_image(self, storage: Storage) -> None:
        document = plan(settings(), storage, FakeSource(*photos(2), metadata={"nowhere.png": {"label": "cat"}}))
        assert document.images == 3
        assert keys(storage, "r1", 0) == ["000000.png", "000001.png", "nowhere.png"]

    def test_a_row_group_is_not_split(self, storage: Storage) -> None:
        document = plan(settings(), storage, FakeSource(*groups(25, 1)))
        assert (document.shards, document.images) == (2, 26)
        assert [row["images"] for shard in range(2) for row in rows(storage, "r1", shard)] == [25, 1]

    def test_the_same_source_gives_the_same_bytes(self, tmp_path: Path) -> None:
        stores = [Storage(f"file://{tmp_path}/{name}") for name in "ab"]
        for store, items in zip(stores, (photos(25), photos(25)[::-1]), strict=True):
            plan(settings(), store, FakeSource(*items))
        assert objects(stores[0]) == objects(stores[1])

    def test_a_listing_that_fails_leaves_no_plan(self, storage: Storage) -> None:
        class Failing(FakeSource):
            def items(self) -> Iterator[Item]:
                yield from photos(3)
                raise PermanentError("no")

        with pytest.raises(PermanentError, match=r"^no$"):
            plan(settings(), storage, Failing())
        assert objects(storage) == {}


class TestPlanThatIsThere:
    def test_is_returned_as_it_is_without_listing_again(self, storage: Storage) -> None:
        first = plan(settings(), storage, FakeSource(*photos(25)))
        files = objects(storage)
        assert plan(settings(shard_images=3), storage, FakeSource()) == first
        assert objects(storage) == files

    @pytest.mark.parametrize(
        ("name", "value"),
        [("model", "other"), ("index", "other"), ("part_images", 7), ("base", "r0")],
    )
    def test_of_other_settings_is_a_usage_error_that_names_both(
        self, storage: Storage, name: str, value: object
    ) -> None:
        plan(settings(), storage, FakeSource(*photos(3)))
        with pytest.raises(UsageError, match=rf"r1 .* {name} .*, not {value!r}: .*--run"):
            plan(settings(**{name: value}), storage, FakeSource(*photos(3)))

    def test_of_another_source_is_a_usage_error(self, storage: Storage) -> None:
        plan(settings(), storage, FakeSource(*photos(3)))
        source = FakeSource()
        source.uri = "elsewhere"
        with pytest.raises(UsageError, match="source 'fake', not 'elsewhere'"):
            plan(settings(), storage, source)

    def test_wins_over_one_that_was_made_meanwhile(self, storage: Storage) -> None:
        class Slow(FakeSource):
            def items(self) -> Iterator[Item]:
                plan(settings(), storage, FakeSource(*photos(25)))
                yield from photos(25)

        assert plan(settings(), storage, Slow()).skipped == {".txt files": 2}


class TestUpdate:
    def test_plans_what_is_new_or_changed_and_names_what_is_dropped(self, storage: Storage) -> None:
        items = photos(25)
        plan(settings(), storage, FakeSource(*items))
        changed_items = [dataclasses.replace(items[3], etag="new"), *items[5:], Item("new.png", 5)]
        document = plan(settings(id="r2", base="r1"), storage, FakeSource(*changed_items))
        assert keys(storage, "r2", 0) == ["000003.png", "new.png"]
        assert dropped_keys(storage, "r2") == [f"{n:06}.png" for n in (0, 1, 2, 3, 4)]
        assert (document.shards, document.images, document.kept, document.removed) == (1, 2, 20, 4)

    def test_where_nothing_changed_leaves_no_run(self, storage: Storage) -> None:
        plan(settings(), storage, FakeSource(*photos(25)))
        document = plan(settings(id="r2", base="r1"), storage, FakeSource(*photos(25)))
        assert (document.shards, document.images, document.kept, document.removed) == (0, 0, 25, 0)
        assert storage.folders("runs") == ["r1"]

    def test_names_every_row_of_a_changed_row_group(self, storage: Storage) -> None:
        plan(settings(), storage, FakeSource(*groups(3, 2), *groups(2, path="b.parquet")))
        changed_items = [*groups(3, 2), *groups(2, path="b.parquet", etag="2")]
        document = plan(settings(id="r2", base="r1"), storage, FakeSource(*changed_items))
        assert dropped_keys(storage, "r2") == ["b.parquet#0", "b.parquet#1"]
        assert (document.images, document.kept, document.removed) == (2, 5, 0)

    def test_of_an_update_of_an_update_knows_what_is_indexed_by_now(self, storage: Storage) -> None:
        states = {
            "r1": [Item("a", 1, "1"), Item("b", 1, "1"), Item("c", 1, "1")],
            "r2": [Item("a", 1, "2"), Item("c", 1, "1"), Item("d", 1, "1")],
            "r3": [Item("a", 1, "2"), Item("b", 1, "1"), Item("d", 1, "2")],
            "r4": [Item("a", 1, "2"), Item("b", 1, "1"), Item("d", 1, "2")],
        }
        documents, base = {}, None
        for run, items in states.items():
            documents[run] = plan(settings(id=run, base=base), storage, FakeSource(*items))
            base = run
        assert keys(storage, "r3", 0) == ["b", "d"]
        assert dropped_keys(storage, "r3") == ["c", "d"]
        assert (documents["r4"].shards, documents["r4"].kept) == (0, 3)

    def test_of_a_base_without_a_plan_is_a_usage_error(self, storage: Storage) -> None:
        with pytest.raises(UsageError, match=r"r0, .* no plan"):
            plan(settings(base="r0"), storage, FakeSource(*photos(1)))

    def test_of_a_base_with_another_model_is_a_usage_error(self, storage: Storage) -> None:
        plan(settings(), storage, FakeSource(*photos(3)))
        with pytest.raises(UsageError, match=r"r1 .* model 'tiny', not 'big': .*--update"):
            plan(settings(id="r2", base="r1", model="big"), storage, FakeSource(*photos(3)))

    def test_writes_dropped_keys_in_pieces_where_there_are_many(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("embedder.plan.DROPPED_ROWS", 4)
        plan(settings(), storage, FakeSource(*photos(10)))
        plan(settings(id="r2", base="r1"), storage, FakeSource(Item("a", 1)))
        assert dropped_keys(storage, "r2") == [item.key for item in photos(10)]


class TestCut:
    @staticmethod
    def shards(*sizes: int, shards: int) -> list[list[int]]:
        rows = [{"size": size, "images": 1} for size in sizes]
        work = sum(sizes) + len(sizes) * IMAGE_COST
        cuts: dict[int, list[int]] = {}
        for shard, row in cut(rows, shards=shards, items=len(rows), work=work):
            cuts.setdefault(shard, []).append(row["size"])
        assert list(cuts) == list(range(shards)), "every shard, none of them empty, in order"
        return list(cuts.values())

    def test_balances_bytes_rather_than_numbers(self) -> None:
        big, small = 10**9, 10**7
        cuts = self.shards(*[big] * 10, *[small] * 1000, shards=2)
        assert [sum(shard) for shard in cuts] == pytest.approx([10 * big, 10 * big], rel=0.01)

    def test_files_without_bytes_are_shared_out_by_number(self) -> None:
        assert [len(shard) for shard in self.shards(*[0] * 9, shards=3)] == [3, 3, 3]

    def test_what_follows_a_huge_item_is_still_balanced(self) -> None:
        cuts = self.shards(10**9, *[10**6] * 30, shards=4)
        assert [len(shard) for shard in cuts] == [1, 10, 10, 10]

    @pytest.mark.parametrize("sizes", [(0, 0, 0), (9, 0, 0), (0, 0, 10**9), (0, 10**9, 0), (10**9, 1, 10**9)])
    @pytest.mark.parametrize("shards", [1, 2, 3])
    def test_no_shard_is_empty(self, sizes: tuple[int, ...], shards: int) -> None:
        assert [size for shard in self.shards(*sizes, shards=shards) for size in shard] == list(sizes)


class TestMemory:
    PROGRAM = """
import json, resource, sys
from collections import Counter
from itertools import islice
from embedder.plan import plan
from imgsearch.settings import RunSettings, Settings
from imgsearch.sources import Item
from imgsearch.storage import Storage

class Endless:
    uri, skipped = "fake", Counter()
    def items(self):
        for n in range(int(sys.argv[2])):
            key = f"{n * 7919 % 1_000_003:07}/a-path-of-an-ordinary-length.jpg"
            yield Item(key, 100_000, etag="0123456789abcdef")
    def image_keys(self, item):
        yield item.key
    def metadata(self):
        for item in islice(self.items(), 0, None, 10):
            yield item.key, {"label": "a label of an ordinary length"}

settings = Settings(run=RunSettings(id="r", index="i", model="m"))
made = plan(settings, Storage(f"file://{sys.argv[1]}"), Endless())
print(json.dumps([made.images, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
"""

    def test_of_twenty_times_the_items_is_about_the_same(self, tmp_path: Path) -> None:
        def megabytes(items: int) -> int:
            command = [sys.executable, "-c", self.PROGRAM, str(tmp_path / str(items)), str(items)]
            completed = subprocess.run(command, capture_output=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
            images, peak = json.loads(completed.stdout)
            assert images == items
            return int(peak)

        # As Python objects, the difference would be over 150 MB.
        assert megabytes(200_000) < megabytes(10_000) + 40


def test_read_plan_says_where_there_is_none(storage: Storage) -> None:
    with pytest.raises(NotFound, match=r"runs/r9/plan\.json"):
        read_plan(storage, "r9")
