"""The Python client, of a searcher in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.client import Client, KeyRefused, Page, Result
from imgsearch.errors import PermanentError, TemporaryError, UsageError
from imgsearch.runs.documents import Facets, RecallFigure
from imgsearch.runs.layout import RunFolder
from tests.programs import free_port
from tests.scripted_server import Response, ScriptedServer
from tests.searcher.library import picture
from tests.searcher.process import SearcherProcess, wait_for_text

FACETS = Facets(
    run="r1",
    index="photos",
    images=4,
    fields=[
        {
            "field": "colour",
            "type": "text",
            "images": 4,
            "distinct": 1,
            "values": [{"value": "red", "count": 4}],
            "min": None,
            "max": None,
            "whole": None,
        }
    ],
)
ANSWER = {
    "results": [{"id": "x", "score": 0.5, "uri": "/x", "image": "/i", "thumbnail": "/t", "of a newer version": 1}],
    "next_cursor": None,
    "index": "photos",
    "run": "r1",
    "model": "m",
    "took_ms": {},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("searcher")
    facets = folder / RunFolder("r1").facets
    facets.parent.mkdir(parents=True)
    facets.write_bytes(FACETS.to_json())
    with SearcherProcess(folder) as searcher:
        searcher.finish()
        wait_for_text(searcher.url, "/readyz", "ready")
        yield searcher.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as search_client:
        yield search_client


def colours(page: Page) -> list[str]:
    return [result.metadata["colour"] for result in page]


def test_a_text_an_image_an_id_an_embedding_and_parts_are_searched_by(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "blue.png"
    file.write_bytes(picture("blue"))
    page = client.search("red", k=2)
    assert colours(page)[0] == "red"
    assert len(page) == 2
    assert (page.index, page.run) == ("photos", "r1")
    (red,) = client.search(id=page.results[0].id, k=1)
    assert red.score == pytest.approx(1)
    assert colours(client.search(image=file, k=1)) == ["blue"]
    assert colours(client.search(image=str(file), k=1)) == ["blue"]
    assert colours(client.search(image=picture("green"), k=1)) == ["green"]
    (vector,) = client.embed(["yellow"])
    assert colours(client.search(embedding=vector, k=1)) == ["yellow"]
    combined = client.search(parts=[{"text": "red"}, {"image": picture("blue"), "weight": 3.0}], k=1)
    assert colours(combined) == ["blue"]


def test_a_search_is_narrowed_and_says_what_it_is_asked_for(client: Client) -> None:
    assert colours(client.search("red", filter={"colour": {"$ne": "red"}}, k=4)).count("red") == 0
    assert colours(client.search("red", min_score=0.999)) == ["red"]
    (folded,) = client.search("red", dedupe=0.5, k=1, include=["embedding"])
    assert len(folded.embedding) > 1
    assert folded.metadata == {}
    assert isinstance(folded.duplicates, list)


def test_pages_follow_each_other_to_the_last(client: Client) -> None:
    pages = list(client.pages("red", k=3))
    assert [len(page) for page in pages] == [3, 1]
    ids = [result.id for page in pages for result in page]
    assert ids == [result.id for result in client.search("red", k=4)]


def test_in_a_batch_each_search_has_its_answer_or_its_error(client: Client) -> None:
    pages = client.batch([{"text": "red", "k": 1}, {"id": "no-such"}, {"image": picture("blue"), "k": 1}])
    assert isinstance(pages[0], Page)
    assert colours(pages[0]) == ["red"]
    assert isinstance(pages[1], UsageError)
    assert "no image with the id 'no-such'" in str(pages[1])
    assert isinstance(pages[2], Page)
    assert colours(pages[2]) == ["blue"]


def test_more_than_one_call_takes_are_several_calls(client: Client) -> None:
    assert len(client.embed(["red"] * 65)) == 65
    assert len(client.embed(image=[picture("red")] * 65)) == 65
    assert len(client.batch([{"text": "red", "k": 1}] * 65)) == 65


def test_pictures_facets_and_indexes_are_read(client: Client) -> None:
    (red,) = client.search("red", k=1)
    assert client.image(red) == client.image(red.id, index="photos") == picture("red")
    assert client.thumbnail(red)[8:12] == client.thumbnail(red.id)[8:12] == b"WEBP"
    assert client.facets() == client.facets("colour") == FACETS.fields
    (index,) = client.indexes()
    assert (index.index, index.images) == ("photos", 4)
    assert index.recall == []


def test_the_recall_of_an_index_is_read() -> None:
    recall: list[RecallFigure] = [{"queries": "texts", "k": 10, "mean": 0.9876, "worst": 0.9}]
    indexes = [{"index": "photos", "run": "r1", "model": "m", "dim": 2, "images": 4, "source": "/x", "published": "-"}]
    response = {"indexes": [*indexes, {**indexes[0], "recall": recall}], "problems": {}}
    with ScriptedServer((200, {}, response)).serving() as url, Client(url) as client:
        assert [index.recall for index in client.indexes()] == [(), recall]


def test_what_is_wrong_is_said_in_the_searchers_own_words(client: Client) -> None:
    with pytest.raises(UsageError, match=r'index "other".*: photos$'):
        client.search("red", index="other")
    with pytest.raises(UsageError, match="give exactly one of text"):
        client.search("red", id="x")


def test_where_nothing_answers_it_is_said() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(TemporaryError, match="no searcher answers"),
    ):
        client.search("red")


BUSY = {"detail": "too many searches wait"}


def test_one_that_is_busy_is_asked_again_when_it_says() -> None:
    slept: list[float] = []
    server = ScriptedServer((429, {"Retry-After": "7"}, BUSY), (503, {}, BUSY), (200, {}, ANSWER))
    with server.serving() as url, Client(url, sleep=slept.append) as client:
        page = client.search("red")
    assert page.results == [Result("x", 0.5, "/x", "/i", "/t")]
    assert slept == [7.0, 2.0]


def test_but_not_for_ever() -> None:
    slept: list[float] = []
    server = ScriptedServer((429, {"Retry-After": "1"}, BUSY))
    with (
        server.serving() as url,
        Client(url, sleep=slept.append) as client,
        pytest.raises(TemporaryError, match="too many searches wait"),
    ):
        client.search("red")
    assert slept == [1.0] * 4
    assert server.requests == 5


@pytest.mark.parametrize(
    ("response", "error_type", "sentence"),
    [
        ((429, {"Retry-After": "3600"}, BUSY), TemporaryError, "too many searches wait"),
        ((502, {}, b"<html>"), TemporaryError, "unexpected response 502 from"),
        ((500, {}, {"detail": "it broke"}), PermanentError, "it broke"),
        ((422, {}, ["x"]), UsageError, "unexpected response 422 from"),
        ((200, {}, b"<html>"), UsageError, "unexpected response 200 from"),
        ((401, {}, BUSY), KeyRefused, "API key is required"),
    ],
)
def test_an_error_that_no_retry_changes_is_raised_at_once(
    response: Response, error_type: type[Exception], sentence: str
) -> None:
    server = ScriptedServer(response)
    with (
        server.serving() as url,
        Client(url, sleep=pytest.fail) as client,
        pytest.raises(error_type, match=sentence.replace("?", r"\?")),
    ):
        client.search("red")
    assert server.requests == 1
