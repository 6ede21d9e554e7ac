"""What every VectorStore must do; the searcher's fake passes the same tests as the real ones."""

from __future__ import annotations

import dataclasses
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from imgsearch.errors import NotFound, TemporaryError, UsageError
from imgsearch.stores import Pointer, Record, VectorStore, open_store
from imgsearch.stores.filters import parse
from tests.fakes import InMemoryStore, matches
from tests.programs import ChromaServer

POINTER = Pointer(
    index="photos",
    run="r1",
    collection="photos-r1",
    model="m",
    fingerprint="f",
    dim=4,
    images=3,
    source="/photos",
    published="2026-01-01T00:00:00+00:00",
)


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ChromaServer(tmp_path_factory.mktemp("chroma-server")) as server:
        server.start()
        yield server.url


@pytest.fixture(params=["memory", "chroma-embedded", "chroma-http"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], VectorStore]:
    """Opens one empty store; again, and it is another client of the same."""
    if request.param == "memory":
        return InMemoryStore().reopen
    if request.param == "chroma-embedded":
        return partial(open_store, f"chroma+file://{tmp_path}/chroma")
    url = request.getfixturevalue("chroma_server")
    with closing(open_store(url)) as first_store:
        for name in first_store.collections():
            first_store.drop(name)
    return partial(open_store, url)


@pytest.fixture
def store(open_again: Callable[[], VectorStore]) -> Iterator[VectorStore]:
    with closing(open_again()) as store:
        yield store


@pytest.fixture
def filled_store(store: VectorStore) -> VectorStore:
    store.create("photos-r1", dim=4, vectors=100)
    store.add("photos-r1", RECORDS)
    return store


def _vector(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


RECORDS = [
    Record("a", {"n": 1, "labels": ["cat", "dog"]}, _vector(1, 0, 0, 0), {"key": "a.jpg"}),
    Record("b", {"n": 2, "labels": ["bird"]}, _vector(0, 1, 0, 0), {"key": "b.jpg"}),
    Record("c", {"n": 3, "city": "Köln"}, _vector(1, 1, 0, 0), {"key": "c.jpg"}),
]


def test_a_search_gives_the_nearest_by_cosine_similarity(filled_store: VectorStore) -> None:
    (hits,) = filled_store.search("photos-r1", _vector(1, 0, 0, 0)[None], k=3)
    assert [hit.id for hit in hits] == ["a", "c", "b"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5, 0.0], abs=1e-5)
    assert hits[0].metadata == RECORDS[0].metadata
    assert hits[0].vector is None


def test_several_queries_are_answered_in_their_order(filled_store: VectorStore) -> None:
    rows = filled_store.search("photos-r1", np.stack([_vector(0, 1, 0, 0), _vector(1, 0, 0, 0)]), k=1, vectors=True)
    assert [[hit.id for hit in row] for row in rows] == [["b"], ["a"]]
    assert rows[1][0].vector == pytest.approx([1, 0, 0, 0])


def test_asking_for_more_than_there_is_gives_all(filled_store: VectorStore) -> None:
    assert len(filled_store.search("photos-r1", _vector(1, 0, 0, 0)[None], k=100)[0]) == 3


def test_the_nearest_are_those_of_a_search_with_their_scores(filled_store: VectorStore) -> None:
    queries = np.stack([_vector(1, 0, 0, 0), _vector(0, 1, 0.5, 0)])
    rows = filled_store.nearest("photos-r1", queries, k=2)
    assert [[neighbour.id for neighbour in row] for row in rows] == [["a", "c"], ["b", "c"]]
    assert [neighbour.score for neighbour in rows[0]] == pytest.approx([1.0, 0.5**0.5], abs=1e-5)
    assert [len(row) for row in filled_store.nearest("photos-r1", queries, k=4_096)] == [3, 3]
    assert filled_store.nearest("photos-r1", queries[:1], k=3, where=parse({"n": {"$gt": 1}}))[0][0].id == "c"
    assert filled_store.nearest("photos-r1", queries[:1], k=3, where=parse({"n": 99})) == [[]]


@pytest.mark.parametrize("vectors", [0, 1, 50_000, 50_001, 10**9])
def test_a_collection_is_created_for_any_number_of_vectors(store: VectorStore, vectors: int) -> None:
    store.create("photos-r1", dim=4, vectors=vectors)
    store.add("photos-r1", RECORDS)
    (neighbours,) = store.nearest("photos-r1", _vector(1, 0, 0, 0)[None], k=3)
    assert [neighbour.id for neighbour in neighbours] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("filter_", "ids"),
    [
        ({"n": {"$eq": 2}}, {"b"}),
        ({"n": 2}, {"b"}),
        ({"n": {"$ne": 2}}, {"a", "c"}),
        ({"n": {"$gt": 2}}, {"c"}),
        ({"n": {"$gte": 2}}, {"b", "c"}),
        ({"n": {"$lt": 2}}, {"a"}),
        ({"n": {"$lte": 2}}, {"a", "b"}),
        ({"n": {"$in": [1, 3]}}, {"a", "c"}),
        ({"n": {"$nin": [1, 3]}}, {"b"}),
        ({"city": "Köln"}, {"c"}),
        ({"labels": {"$contains": "dog"}}, {"a"}),
        ({"$and": [{"n": {"$gt": 1}}, {"n": {"$lt": 3}}]}, {"b"}),
        ({"$or": [{"n": 1}, {"city": "Köln"}]}, {"a", "c"}),
        ({"n": 99}, set()),
    ],
)
def test_filters_keep_what_matches(filled_store: VectorStore, filter_: dict[str, object], ids: set[str]) -> None:
    (hits,) = filled_store.search("photos-r1", _vector(1, 0, 0, 0)[None], k=10, where=parse(filter_))
    assert {hit.id for hit in hits} == ids


@pytest.mark.parametrize(
    ("filter_", "ids"),
    [
        ({"n": {"$in": [number + 0.5 for number in range(1000)]}}, {"half"}),
        ({"n": {"$nin": [number + 0.5 for number in range(1000)]}}, {"whole"}),
        ({"$or": [{"n": number} for number in range(1000)]}, {"whole"}),
    ],
)
def test_a_filter_may_have_a_thousand_values(store: VectorStore, filter_: dict[str, object], ids: set[str]) -> None:
    store.create("numbers", dim=4, vectors=100)
    records = [Record("whole", {"n": 7}, _vector(1, 0, 0, 0)), Record("half", {"n": 7.5}, _vector(1, 0, 0, 0))]
    store.add("numbers", records)
    (hits,) = store.search("numbers", _vector(1, 0, 0, 0)[None], k=10, where=parse(filter_))
    assert {hit.id for hit in hits} == ids


@pytest.mark.parametrize("bound", [-4.5, -3.999, -0.5, 0.5, 3.999, 4.5, 4, 4.0, math.nextafter(4, 5)])
def test_whole_numbers_and_fractions_are_compared_by_their_value(store: VectorStore, bound: float) -> None:
    numbers = [-5, -4.5, -4, -1, -0.5, 0, 0.5, 1, 4, 4.0, 4.25, 4.5, 5, math.nextafter(4, 5)]
    records = [Record(f"n{position}", {"n": number}, _vector(1, 0, 0, 0)) for position, number in enumerate(numbers)]
    records.append(Record("none", {"m": 1}, _vector(1, 0, 0, 0)))
    store.create("numbers", dim=4, vectors=100)
    store.add("numbers", records)
    conditions = [{operator: bound} for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")]
    for condition in [*conditions, {"$in": [bound, type(bound)(1)]}, {"$nin": [bound, type(bound)(1)]}]:
        (hits,) = store.search("numbers", _vector(1, 0, 0, 0)[None], k=100, where=parse({"n": condition}))
        expected = {record.id for record in records if matches(parse({"n": condition}), record.metadata)}
        assert {hit.id for hit in hits} == expected, condition


NAMES = [
    *("", "#likes", "$price", "$and", "$or", "$eq", "_key", "_", "key", "\\", "\\\\", "\\_key", "\\#likes"),
    *("chroma:document", "\\chroma:document", "a.b", "a b", "a'b\"c`", "%", "a\0b", "\x1b[31m", "\n", "\u202eabc"),
    *("\u00e9", "e\u0301", "__proto__", "x" * 1000),
]
"""Any text is a name. U+00E9 and U+0065 U+0301 look alike, and are two names."""


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_metadata_may_have_any_name(store: VectorStore, name: str) -> None:
    store.create("names", dim=4, vectors=100)
    store.add("names", [Record("a", {name: 1}, _vector(1, 0, 0, 0)), Record("b", {"n": 1}, _vector(1, 0, 0, 0))])
    (hits,) = store.search("names", _vector(1, 0, 0, 0)[None], k=2, where=parse({name: {"$gte": 1}}))
    assert [
        hit.id for hit in store.search("names", _vector(1, 0, 0, 0)[None], k=2, where=parse({name: {"$ne": 1}}))[0]
    ] == ["b"]
    # Chroma 1.5.9 gives new records the lists of records in deleted collections: `labels` may be there, too.
    assert [(hit.id, {**hit.metadata, "labels": None}) for hit in hits] == [("a", {name: 1, "labels": None})]
    assert [{**record.metadata, "labels": None} for record in store.get("names", ["a"])] == [{name: 1, "labels": None}]


def test_no_two_names_are_stored_as_one(store: VectorStore) -> None:
    metadata: dict[str, object] = {name: number for number, name in enumerate(NAMES)}
    store.create("names", dim=4, vectors=100)
    store.add("names", [Record("a", metadata, _vector(1, 0, 0, 0), {"key": "a.jpg", "width": 3})])
    (record,) = store.get("names", ["a"])
    assert {name: record.metadata[name] for name in NAMES} == metadata
    assert record.internal == {"key": "a.jpg", "width": 3}
    (hits,) = store.search("names", _vector(1, 0, 0, 0)[None], k=1)
    assert ({name: hits[0].metadata[name] for name in NAMES}, hits[0].internal) == (metadata, record.internal)


def test_a_filter_never_finds_an_internal_field(store: VectorStore) -> None:
    store.create("names", dim=4, vectors=100)
    store.add("names", [Record("a", {"_key": "theirs"}, _vector(1, 0, 0, 0), {"key": "ours"})])
    for name, value, ids in [("_key", "theirs", ["a"]), ("_key", "ours", []), ("key", "ours", [])]:
        (hits,) = store.search("names", _vector(1, 0, 0, 0)[None], k=1, where=parse({name: value}))
        assert [hit.id for hit in hits] == ids


def test_missing_names_what_is_not_stored(filled_store: VectorStore) -> None:
    assert filled_store.missing("photos-r1", ["a", "x", "c", "y"]) == {"x", "y"}
    assert filled_store.missing("photos-r1", []) == set()


def test_get_keeps_the_order_and_leaves_out_what_is_not_stored(filled_store: VectorStore) -> None:
    records = filled_store.get("photos-r1", ["c", "x", "a"], vectors=True)
    assert [record.id for record in records] == ["c", "a"]
    assert records[0].metadata == RECORDS[2].metadata
    assert records[1].vector == pytest.approx([1, 0, 0, 0])


def test_creating_twice_keeps_what_is_there(filled_store: VectorStore) -> None:
    filled_store.create("photos-r1", dim=4, vectors=100)
    assert filled_store.count("photos-r1") == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.count("no-such"),
        lambda s: s.get("no-such", ["a"]),
        lambda s: s.missing("no-such", ["a"]),
        lambda s: s.finish("no-such"),
        lambda s: s.search("no-such", _vector(1, 0, 0, 0)[None], k=1),
        lambda s: s.nearest("no-such", _vector(1, 0, 0, 0)[None], k=1),
        lambda s: s.add("no-such", RECORDS),
    ],
)
def test_a_collection_that_is_not_there_is_named(store: VectorStore, call: Callable[[VectorStore], object]) -> None:
    with pytest.raises(NotFound, match="no-such"):
        call(store)


def test_a_finished_collection_is_as_it_was_and_takes_more(filled_store: VectorStore) -> None:
    before = filled_store.get("photos-r1", ["a", "b", "c"], vectors=True)
    for _ in range(2):
        filled_store.finish("photos-r1")
    assert [record.id for record in filled_store.get("photos-r1", ["a", "b", "c"])] == [record.id for record in before]
    filled_store.add("photos-r1", [Record("d", {"n": 4}, _vector(0, 0, 0, 1))])
    filled_store.finish("photos-r1")
    assert filled_store.search("photos-r1", _vector(0, 0, 0, 1)[None], k=1)[0][0].id == "d"
    assert filled_store.count("photos-r1") == 4


def test_a_dropped_collection_is_gone_and_can_be_made_again(filled_store: VectorStore) -> None:
    filled_store.drop("photos-r1")
    filled_store.drop("photos-r1")
    assert "photos-r1" not in filled_store.collections()
    with pytest.raises(NotFound):
        filled_store.count("photos-r1")
    filled_store.create("photos-r1", dim=4, vectors=100)
    assert filled_store.count("photos-r1") == 0


def test_a_pointer_is_replaced_whole(filled_store: VectorStore) -> None:
    filled_store.publish(POINTER)
    assert filled_store.pointers()["photos"] == POINTER
    second = dataclasses.replace(POINTER, run="r2", collection="photos-r2", previous=POINTER)
    filled_store.publish(second)
    filled_store.publish(second)
    assert filled_store.pointers()["photos"] == second
    assert "photos-r1" in filled_store.collections()
    assert all("pointer" not in name for name in filled_store.collections())


def test_a_reopened_store_sees_the_same(filled_store: VectorStore) -> None:
    filled_store.publish(POINTER)
    reopened = filled_store.reopen()
    assert reopened.count("photos-r1") == 3
    assert reopened.pointers()["photos"] == POINTER
    assert reopened.search("photos-r1", _vector(0, 1, 0, 0)[None], k=1)[0][0].id == "b"
    reopened.close()


def test_a_url_of_no_store_says_which_there_are() -> None:
    with pytest.raises(UsageError, match=r"chroma\+file"):
        open_store("redis://localhost")


@pytest.mark.parametrize("url", ["chroma+http://127.0.0.1:port", "chroma+http://", "chroma+file://here"])
def test_a_wrong_url_is_named(url: str) -> None:
    with pytest.raises(UsageError, match=re.escape(url)):
        open_store(url)


def test_a_server_that_is_down_is_a_temporary_error_until_it_answers(tmp_path: Path) -> None:
    with ChromaServer(tmp_path) as server, closing(open_store(server.url)) as store:
        for call in (store.pointers, store.collections, lambda: store.count("a"), lambda: store.missing("a", ["b"])):
            with pytest.raises(TemporaryError, match=re.escape(f"{server.url} does not answer")):
                call()
        server.start()
        assert store.pointers() == {}


def test_a_server_that_is_killed_and_started_again_is_asked_again(tmp_path: Path) -> None:
    with ChromaServer(tmp_path) as server, closing(open_store(server.url)) as store:
        server.start()
        store.create("photos-r1", dim=4, vectors=100)
        store.add("photos-r1", RECORDS)
        server.kill()
        with pytest.raises(TemporaryError, match="does not answer"):
            store.search("photos-r1", _vector(1, 0, 0, 0)[None], k=1)
        server.start()
        assert store.count("photos-r1") == 3
        assert store.search("photos-r1", _vector(0, 1, 0, 0)[None], k=1)[0][0].id == "b"


def test_a_proxy_that_answers_instead_of_the_server_is_a_temporary_error(tmp_path: Path) -> None:
    with ChromaServer(tmp_path) as server, closing(open_store(server.url)) as store:
        server.start()
        store.create("photos-r1", dim=4, vectors=100)
        assert store.count("photos-r1") == 0
        server.kill()
        with HTTPServer(("127.0.0.1", server.port), BaseHTTPRequestHandler) as proxy:  # says 501 in HTML
            thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            for client in (store, open_store(server.url)):
                with pytest.raises(TemporaryError, match="501"):
                    client.count("photos-r1")
            proxy.shutdown()
            thread.join()
        server.start()
        assert store.count("photos-r1") == 0


def test_a_collection_that_was_made_anew_under_its_name_is_found(
    store: VectorStore, open_again: Callable[[], VectorStore]
) -> None:
    """By a client that knew the one before."""
    store.create("photos-r1", dim=4, vectors=100)
    store.add("photos-r1", RECORDS)
    assert store.count("photos-r1") == 3
    with closing(open_again()) as second_store:
        second_store.drop("photos-r1")
        second_store.create("photos-r1", dim=4, vectors=100)
        second_store.add("photos-r1", RECORDS[:1])
    assert store.count("photos-r1") == 1
    assert [record.id for record in store.get("photos-r1", ["a", "b"])] == ["a"]


@pytest.mark.parametrize("number", [4, 4.0, 4.5, 2**53 + 1])
def test_lists_contain_numbers_by_their_value(store: VectorStore, number: float) -> None:
    """The last test here: Chroma 1.5.9 gives new records the lists of records in deleted collections."""
    lists: list[list[float]] = [[1, 4], [4.0, 4.5], [5], [-4.0], [2**53 + 1], [2.0**53]]
    records = [Record(f"n{position}", {"n": numbers}, _vector(1, 0, 0, 0)) for position, numbers in enumerate(lists)]
    store.create("numbers", dim=4, vectors=10)
    store.add("numbers", records)
    for operator, expected in [("$contains", True), ("$not_contains", False)]:
        (hits,) = store.search("numbers", _vector(1, 0, 0, 0)[None], k=100, where=parse({"n": {operator: number}}))
        ids = {f"n{position}" for position, numbers in enumerate(lists) if (number in numbers) is expected}
        assert {hit.id for hit in hits} == ids, operator
