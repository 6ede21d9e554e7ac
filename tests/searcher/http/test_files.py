"""Files as answers: what is sent of them, for which headers. After RFC 9110, sections 8.8, 13 and 14."""

from __future__ import annotations

import pytest

from searcher.content.files import File, etag_matches
from searcher.http.files import Conditions, file_response, requested_range
from searcher.search.errors import Problem

DATA = bytes(range(100))
TAG = '"abc"'
FILE = File(TAG, DATA, "image/png")


@pytest.mark.parametrize(
    ("if_none_match", "etag", "matched"),
    [
        ("", TAG, False),
        ('"abc"', TAG, True),
        ('W/"abc"', TAG, True),
        ('"abc"', 'W/"abc"', True),
        ('"x", W/"abc"', TAG, True),
        ('"x","abc","y"', TAG, True),
        ("*", TAG, True),
        (" * ", TAG, True),
        ('"*"', TAG, False),
        ("abc", TAG, False),
        ('"abcd"', TAG, False),
        ('"xabc"', TAG, False),
        ('"ABC"', TAG, False),
        ('"abc', TAG, False),
    ],
)
def test_a_copy_is_known_by_its_etag(if_none_match: str, etag: str, matched: bool) -> None:
    assert etag_matches(if_none_match, etag) is matched


@pytest.mark.parametrize(
    ("range", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-19", 10, 20),
        ("bytes=90-", 90, 100),
        ("bytes=99-", 99, 100),
        ("bytes=90-1000", 90, 100),
        ("bytes=-1", 99, 100),
        ("bytes=-1000", 0, 100),
        (" bytes=5-6 ", 5, 7),
    ],
)
def test_a_part_is_as_it_was_asked_for(range: str, start: int, end: int) -> None:
    response = file_response(FILE, Conditions(range=range), cache="no-cache")
    assert response.status_code == 206
    assert response.body == DATA[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/100"
    assert response.headers["content-length"] == str(end - start)
    assert (response.headers["etag"], response.headers["content-type"]) == (TAG, "image/png")


@pytest.mark.parametrize("range", ["bytes=100-", "bytes=100-200", "bytes=999999999999999999-", "bytes=-0"])
def test_a_part_that_the_file_does_not_have_is_refused_with_its_size(range: str) -> None:
    with pytest.raises(Problem) as error:
        file_response(FILE, Conditions(range=range), cache="no-cache")
    assert error.value.status == 416
    assert error.value.headers == {"Content-Range": "bytes */100"}


def test_an_empty_file_has_no_requested_range() -> None:
    with pytest.raises(Problem, match="0 bytes"):
        requested_range(Conditions(range="bytes=-5"), TAG, 0)


@pytest.mark.parametrize(
    "range",
    [
        "",
        "bytes=-",
        "bytes=",
        "bytes=9-5",
        "bytes=0-1,5-6",
        "bytes=0-1, 5-6",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1--2",
        "bytes= 1-2",
        "bytes=0x1-2",
        "items=0-1",
        "0-1",
        "bytes=" + "9" * 5000 + "-",
        "bytes=١-٢",
    ],
)
def test_what_is_not_one_part_is_answered_with_the_whole(range: str) -> None:
    response = file_response(FILE, Conditions(range=range), cache="no-cache")
    assert (response.status_code, response.body) == (200, DATA)
    assert response.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (TAG, 206),
        ("", 206),
        ('"other"', 200),
        ('W/"abc"', 200),
        ("abc", 200),
        ("Sun, 22 Nov 2026 00:00:00 GMT", 200),
    ],
)
def test_a_part_of_another_version_is_the_whole_of_this_one(if_range: str, status: int) -> None:
    response = file_response(FILE, Conditions(range="bytes=0-9", if_range=if_range), cache="no-cache")
    assert response.status_code == status


def test_a_known_copy_comes_before_the_requested_range() -> None:
    response = file_response(FILE, Conditions(if_none_match=TAG, range="bytes=0-9"), cache="no-cache")
    assert (response.status_code, response.body) == (304, b"")
    assert "content-range" not in response.headers
    assert "content-length" not in response.headers


def test_what_may_be_compressed_has_no_parts() -> None:
    """Their positions would be those of other bytes."""
    weak = File('W/"abc"', DATA, "application/json")
    response = file_response(weak, Conditions(range="bytes=0-9", if_range='W/"abc"'), cache="no-cache")
    assert (response.status_code, response.body) == (200, DATA)
    assert "accept-ranges" not in response.headers
