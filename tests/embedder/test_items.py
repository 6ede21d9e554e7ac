"""The sorted, joined, compared items of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from embedder.items import Items, Totals
from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs.tables import ITEMS, table
from imgsearch.sources import Item
from imgsearch.sources.values import Metadata


def image_keys(item: Item) -> list[str]:
    """As of a source in which some files have many images."""
    return [item.key] if item.images == 1 else [f"{item.key}#{item.first + n}" for n in range(item.images)]


@pytest.fixture
def items() -> Iterator[Items]:
    with Items(image_keys) as items:
        yield items


def add_items(items: Items, *new_items: Item, metadata: Iterable[tuple[str, Metadata]] = ()) -> None:
    items.add(new_items, metadata)


def add_base(items: Items, *rows: Item, dropped_keys: Iterable[str] = ()) -> None:
    """An earlier run, through the same rows as are written to its plan."""
    with Items(image_keys) as earlier:
        earlier.add(rows, ())
        items.add_base(table(ITEMS, list(earlier.wanted())).to_pylist(), dropped_keys)


def planned_keys(items: Items) -> list[Any]:
    """Keys, and of files with many images also the unit."""
    rows = list(items.wanted())
    return [(row["key"], row["unit"]) if row["images"] > 1 or row["unit"] else row["key"] for row in rows]


def group(key: str, number: int, *, etag: str = "1", images: int = 2, first: int = 0) -> Item:
    return Item(key, size=10, etag=etag, images=images, unit=number, first=first)


class TestSorting:
    def test_orders_by_the_bytes_of_the_key_then_by_unit(self, items: Items) -> None:
        add_items(items, Item("é", 1), Item("b", 1), Item("B", 1), Item("b/a", 1), group("a", 10), group("a", 9))
        assert planned_keys(items) == ["B", ("a", 9), ("a", 10), "b", "b/a", "é"]

    def test_gives_rows_of_the_plans_table(self, items: Items) -> None:
        add_items(items, group("a", 3, first=7))
        assert list(items.wanted()) == [
            {
                "key": "a",
                "unit": 3,
                "first": 7,
                "images": 2,
                "size": 10,
                "etag": "1",
                "metadata": "{}",
            }
        ]

    def test_sums_items_images_and_bytes(self, items: Items) -> None:
        assert items.totals() == Totals(items=0, images=0, bytes=0)
        add_items(items, Item("a", 2**40), group("b", 0, images=5))
        assert items.totals() == Totals(items=2, images=6, bytes=2**40 + 10)

    def test_refuses_two_images_of_one_key_and_names_it(self, items: Items) -> None:
        with pytest.raises(UsageError, match=r"two images .*'b'"):
            add_items(items, Item("a", 1), Item("b", 1), Item("b", 2), Item("c", 1))


class TestMetadata:
    def test_is_joined_to_its_item(self, items: Items) -> None:
        add_items(items, Item("a", 1, "x"), Item("b", 1), metadata=[("a", {"label": "Katze 😺"})])
        assert [row["metadata"] for row in items.wanted()] == ['{"label": "Katze 😺"}', "{}"]

    def test_without_a_file_makes_an_item_that_will_be_found_bad(self, items: Items) -> None:
        add_items(items, Item("b", 1, "x"), metadata=[("a", {"n": 1}), ("c\0'--", {})])
        assert planned_keys(items) == ["a", "b", "c\0'--"]
        assert items.totals() == Totals(items=3, images=3, bytes=1)
        first = next(items.wanted())
        assert (first["size"], first["etag"], first["metadata"]) == (0, "", '{"n": 1}')

    @pytest.mark.parametrize("key", ["a", "gone"])
    def test_refuses_two_rows_for_one_key(self, items: Items, key: str) -> None:
        with pytest.raises(UsageError, match=f"two rows .*'{key}'"):
            add_items(items, Item("a", 1), metadata=[(key, {}), (key, {})])


class TestComparing:
    def test_wants_new_and_changed_items_only(self, items: Items) -> None:
        add_base(items, Item("same", 1, "1"), Item("changed", 1, "1"), Item("gone", 1, "1"))
        add_items(items, Item("same", 1, "1"), Item("changed", 1, "2"), Item("new", 1, "1"))
        assert planned_keys(items) == ["changed", "new"]
        assert items.totals().items == 2
        assert list(items.dropped()) == ["changed", "gone"]
        assert (items.kept(), items.removed()) == (1, 1)

    def test_an_item_is_changed_where_its_metadata_is(self, items: Items) -> None:
        add_base(items, Item("a", 1, "1", metadata={"n": 1}), Item("b", 1, "1", metadata={"n": 1}))
        add_items(items, Item("a", 1, "1"), Item("b", 1, "1"), metadata=[("a", {"n": 1}), ("b", {"n": 2})])
        assert planned_keys(items) == ["b"]

    def test_an_item_is_not_changed_by_what_follows_the_at_sign(self, items: Items) -> None:
        add_base(items, Item("a", 1, "blob@commit1"), Item("b", 1, "blob@commit1"))
        add_items(items, Item("a", 1, "blob@commit2"), Item("b", 1, "other@commit1"))
        assert planned_keys(items) == ["b"]

    def test_a_changed_unit_drops_all_its_rows_by_their_keys(self, items: Items) -> None:
        add_base(items, group("f", 0), group("f", 1, first=2, images=3), group("g", 0))
        add_items(items, group("f", 0), group("f", 1, first=2, images=1, etag="2"))
        assert planned_keys(items) == [("f", 1)]
        assert list(items.dropped()) == ["f#2", "f#3", "f#4", "g#0", "g#1"]
        assert (items.kept(), items.removed()) == (2, 4)

    def test_a_base_that_was_an_update_is_taken_in_after_its_own(self, items: Items) -> None:
        add_base(items, Item("a", 1, "1"), Item("b", 1, "1"), group("f", 0), group("f", 1, first=2))
        add_base(items, Item("a", 1, "2"), Item("c", 1, "1"), dropped_keys=["a", "b", "f#2", "f#3"])
        add_items(items, Item("a", 1, "2"), Item("c", 1, "1"), group("f", 0))
        assert planned_keys(items) == []
        assert list(items.dropped()) == []
        assert items.kept() == 4


def test_a_full_disk_of_temporary_files_is_explained() -> None:
    def fill_small_disk() -> None:
        with Items(image_keys) as items:
            items._db.execute("PRAGMA max_page_count = 12")
            add_items(items, *(Item(f"{n:0100}", 1) for n in range(10_000)))

    with pytest.raises(PermanentError, match="TMPDIR"):
        fill_small_disk()
