from __future__ import annotations

from typing import Any

import pytest

from controller.jobs.results import (
    UNKNOWN_ERROR,
    EmbedResult,
    ErrorResult,
    IndexReport,
    IngestResult,
    PlanResult,
    exit_error,
    parse_output,
    progress,
)
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError


def test_the_last_line_is_the_result_and_the_rest_is_text() -> None:
    parsed = parse_output('key,reason\n"a\nb",[x]\n{"bytes": 3}\n')
    assert parsed.result == {"bytes": 3}
    assert parsed.text == 'key,reason\n"a\nb",[x]\n'
    assert parse_output('{"indexes": []}').text == ""


@pytest.mark.parametrize("output", ["", "\n", "words\n", "[1]\n", '{"bytes": 3}\nTraceback'])
def test_what_ends_without_a_result_is_none(output: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting value|invalid result|Extra data"):
        parse_output(output)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], (0, 0)),
        ([b'{"done": 1, "total": 9}', b'{"done": 4, "total": 9}', b'{"message": "x"}', b"a warning"], (4, 9)),
        (['{"done": 4, "total": 9}', "[1]", '{"done": null, "total": 1}', '{"done": 5, "to'], (4, 9)),
    ],
)
def test_progress_is_the_last_that_was_logged(lines: list[bytes | str], expected: tuple[int, int]) -> None:
    assert progress(lines) == expected


@pytest.mark.parametrize(
    ("code", "error_type"),
    [(2, UsageError), (3, TemporaryError), (4, PermanentError), (137, TemporaryError), (None, TemporaryError)],
)
def test_an_exit_code_says_of_what_kind_an_error_is(code: int | None, error_type: type[ImgsearchError]) -> None:
    error = exit_error(code, "it broke")
    assert type(error) is error_type
    assert str(error) == "it broke"


def test_a_document_is_the_line_before_the_result() -> None:
    assert parse_output('a warning\n"Käse\\r\\n"\n{"bytes": 11}\n').document() == "Käse\r\n"
    assert parse_output('[1, {"a": 2}]\n{"bytes": 13}\n').document() == [1, {"a": 2}]


@pytest.mark.parametrize("text", ["", "\n", '"äse"\n', '"Käse"\na line of a log\n'])
def test_a_document_that_was_cut_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a document of 7 bytes is incomplete"):
        parse_output(text + '{"bytes": 7}').document()


def test_results_of_stages_are_documents() -> None:
    plan = PlanResult.from_json({"shards": 3, "images": 30, "kept": 4}, "the result")
    assert plan == PlanResult(shards=3, images=30, kept=4, removed=0)
    assert EmbedResult.from_json({"shard": 0, "images": 9, "bad": 1}).processed == 10
    report = {"index": "photos", "images": 30, "bad": 1, "published": "r1", "seconds": 2.0}
    assert IngestResult.from_json(report, "the report") == IngestResult("photos", images=30, bad=1, published="r1")


@pytest.mark.parametrize(
    ("result", "field"),
    [({"images": 30}, "shards"), ({"shards": "3", "images": 30}, "shards"), ({"shards": 3, "images": None}, "images")],
)
def test_what_is_not_the_result_of_a_plan_is_refused_with_its_field(result: dict[str, Any], field: str) -> None:
    """As a plan of no shards, it would end the run as one in which nothing has changed."""
    with pytest.raises(
        PermanentError, match=rf"the result of Job x is damaged .*field {field}: .*`controller cleanup`"
    ):
        PlanResult.from_json(result, "the result of Job x")


def test_what_is_not_the_result_of_an_ingest_is_refused_with_its_field() -> None:
    with pytest.raises(PermanentError, match="field images: "):
        IngestResult.from_json({"index": "photos", "bad": 1, "published": "r1"}, "the result of Job x")


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"error": "damaged"}, "damaged"),
        ({"interrupted": True}, "interrupted"),
        ({}, UNKNOWN_ERROR),
        (None, UNKNOWN_ERROR),
    ],
)
def test_a_program_that_failed_has_an_error(result: dict[str, Any] | None, error: str) -> None:
    assert ErrorResult.from_json(result) == ErrorResult(error)
    assert ErrorResult.from_json(ErrorResult(error).to_json()) == ErrorResult(error)


def test_an_index_has_a_result_an_error_or_neither() -> None:
    assert IndexReport({"error": "damaged"}).error == "damaged"
    assert IndexReport({"images": 9}).embedded == EmbedResult(images=9, bad=0)
    assert (IndexReport(done=4).error, IndexReport(done=4).embedded) == (None, None)
