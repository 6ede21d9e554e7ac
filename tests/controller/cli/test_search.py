"""A search from the command line, of a searcher that wants its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.main import main
from tests.programs import free_port
from tests.searcher.library import hashed, picture
from tests.searcher.process import SearcherProcess, wait_for_text

KEY = "schlüssel"
Search = Callable[..., list[str]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SearcherProcess(tmp_path_factory.mktemp("searcher"), api_keys=hashed(KEY)) as searcher:
        searcher.finish()
        wait_for_text(searcher.url, "/readyz", "ready")
        yield searcher.url


@pytest.fixture
def search(url: str, capsys: pytest.CaptureFixture[str]) -> Search:
    """The colours that `controller search WORDS` gives."""

    def call(*arguments: str) -> list[str]:
        code = main(["search", *arguments, "--url", url, "-o", "json"], {"IMGSEARCH_API_KEY": f"{KEY}\n"})
        output, errors = capsys.readouterr()
        assert code == 0, errors
        results: list[dict[str, Any]] = json.loads(output)["results"]
        return [result["metadata"]["colour"] for result in results]

    return call


@pytest.fixture
def blue(tmp_path: Path) -> str:
    file = tmp_path / "blue.png"
    file.write_bytes(picture("blue"))
    return str(file)


def test_a_text_an_image_or_both_are_searched_by(search: Search, blue: str) -> None:
    assert search("red", "-k", "1") == ["red"]
    assert search(blue, "-k", "1") == ["blue"]
    assert set(search("red", blue, "-k", "2")) == {"red", "blue"}


def test_a_filter_and_a_least_score_narrow_it(search: Search) -> None:
    assert "red" not in search("red", "--filter", '{"colour": {"$ne": "red"}}')
    assert search("red", "--min-score", "0.999") == ["red"]


def test_a_person_gets_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "red", "-k", "1", "--url", url], {"IMGSEARCH_API_KEY": KEY}) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["score", "image"]
    assert row.split() == ["1.000", "/data/photos/red.png"]


@pytest.mark.parametrize(
    ("arguments", "key", "code", "sentence"),
    [
        (["red"], None, 2, "{url} needs an API key (401): set IMGSEARCH_API_KEY"),
        (["red"], "", 2, "{url} needs an API key (401): set IMGSEARCH_API_KEY"),
        (["red"], "hunter2", 2, "{url} rejects the API key in IMGSEARCH_API_KEY (401)"),
        (["./no-such.jpg"], KEY, 2, "./no-such.jpg"),
        (["red", "--filter", "[1]"], KEY, 2, "--filter [1]"),
        (["red", "--filter", "year=1"], KEY, 2, "--filter year=1"),
        (["red", "--index", "x"], KEY, 2, "photos"),
    ],
)
def test_mistakes_get_one_sentence(
    url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], key: str | None, code: int, sentence: str
) -> None:
    env = {} if key is None else {"IMGSEARCH_API_KEY": key}
    assert main(["search", *arguments, "--url", url], env) == code
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: ")
    assert sentence.format(url=url) in error
    assert error.count("error:") == 1


def test_where_nothing_answers_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["search", "red", "--url", url], {}) == 3
    assert f"no searcher answers at {url}" in capsys.readouterr().err
