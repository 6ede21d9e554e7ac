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
from tests.searcher.process import SearcherProcess, answers

KEY = "schlüssel"
Search = Callable[..., list[str]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SearcherProcess(tmp_path_factory.mktemp("searcher"), api_keys=hashed(KEY)) as searcher:
        searcher.finish()
        answers(searcher.url, "/readyz", "ready")
        yield searcher.url


@pytest.fixture
def search(url: str, capsys: pytest.CaptureFixture[str]) -> Search:
    """The colours that `controller search WORDS` gives."""

    def call(*words: str) -> list[str]:
        code = main(["search", *words, "--url", url, "-o", "json"], {"IMGSEARCH_API_KEY": f"{KEY}\n"})
        out, err = capsys.readouterr()
        assert code == 0, err
        results: list[dict[str, Any]] = json.loads(out)["results"]
        return [each["metadata"]["colour"] for each in results]

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
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["score", "image"]
    assert row.split() == ["1.000", "/data/photos/red.png"]


@pytest.mark.parametrize(
    ("words", "key", "code", "sentence"),
    [
        (["red"], None, 2, "{url} wants its API key: set IMGSEARCH_API_KEY to it"),
        (["red"], "", 2, "{url} wants its API key: set IMGSEARCH_API_KEY to it"),
        (
            ["red"],
            "hunter2",
            2,
            "{url} does not know the API key in IMGSEARCH_API_KEY: ask whoever runs it for the right one",
        ),
        (["./no-such.jpg"], KEY, 2, "there is no file ./no-such.jpg"),
        (["red", "--filter", "[1]"], KEY, 2, "--filter [1] is no JSON object: write it as '{{\"year\": 2020}}'"),
        (["red", "--filter", "year=1"], KEY, 2, "--filter year=1 is no JSON object: write it as '{{\"year\": 2020}}'"),
        (["red", "--index", "x"], KEY, 2, 'there is no index "x"; the indexes are: photos'),
    ],
)
def test_mistakes_get_one_sentence(
    url: str, capsys: pytest.CaptureFixture[str], words: list[str], key: str | None, code: int, sentence: str
) -> None:
    env = {} if key is None else {"IMGSEARCH_API_KEY": key}
    assert main(["search", *words, "--url", url], env) == code
    assert " ".join(capsys.readouterr().err.split()) == f"error: {sentence.format(url=url)}"


def test_where_nothing_answers_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert main(["search", "red", "--url", nowhere], {}) == 3
    assert f"no searcher answers at {nowhere}" in capsys.readouterr().err
