"""A search from the command line, of a searcher that wants its key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.query import connect, find
from imgsearch.errors import TemporaryError, UsageError
from tests.programs import free_port
from tests.searcher.library import picture
from tests.searcher.process import SearcherProcess, answers

KEY = "schlüssel"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SearcherProcess(tmp_path_factory.mktemp("searcher"), api_key=KEY) as searcher:
        searcher.finish()
        answers(searcher.url, "/readyz", "ready")
        yield searcher.url


def test_with_its_key_a_searcher_answers_a_text_and_an_image(url: str, tmp_path: Path) -> None:
    file = tmp_path / "blue.png"
    file.write_bytes(picture("blue"))
    with connect(url, key=f"{KEY}\n") as client:
        for query, colour in [("red", "red"), (str(file), "blue")]:
            (result,) = find(client, query, k=1, index=None)["results"]
            assert result["metadata"]["colour"] == colour


@pytest.mark.parametrize("key", [None, ""])
def test_without_it_the_variable_is_named(url: str, key: str | None) -> None:
    with connect(url, key=key) as client, pytest.raises(UsageError, match="set IMGSEARCH_API_KEY to it"):
        find(client, "red", k=1, index=None)


def test_a_wrong_key_is_not_repeated(url: str) -> None:
    with connect(url, key="hunter2") as client, pytest.raises(UsageError) as refused:
        find(client, "red", k=1, index=None)
    assert str(refused.value) == (
        f"{url} does not know the API key in IMGSEARCH_API_KEY: ask whoever runs it for the right one"
    )


def test_where_nothing_answers_it_is_said() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with connect(nowhere, key=None) as client, pytest.raises(TemporaryError, match="no searcher answers"):
        find(client, "red", k=1, index=None)
