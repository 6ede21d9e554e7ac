"""The JSON documents of a run folder: one that is damaged or edited is refused by its name and field."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from imgsearch.errors import ExitCode, PermanentError
from imgsearch.runs.documents import Document, Facets, Map, Plan, Report, ShardDone, Table

NAME = "runs/r1/document.json"
DOCUMENTS: list[Document] = [
    Plan("r1", "photos", "/photos", "m", 2, 20, 100, 2000, base="r0", skipped={".txt files": 2}, digests={"a": "0"}),
    ShardDone(0, 10, 1, 2, "m", "f", 8, 100, 1.5, {"read": 0.5}, digests={"part-00000.parquet": "0"}, changed=["a"]),
    Report(
        *("r1", "photos", "/photos", "m", "f", 8, "photos-r1", "2026-01-01T00:00:00+00:00", 2, 20, 1, 0, 0),
        skipped={"hidden files": 1},
        bad_reasons={"decode: truncated": 1},
        bad_examples=[{"key": "é", "stage": "decode", "reason": "truncated"}],
        embed_seconds=1.0,
        embed_stages={"read": 0.1},
        embed_bytes=100,
        ingest_seconds=2.0,
        ingest_stages={"store": 1},
        vectors_added=20,
        verified={"counted": 20},
        candidates=128,
        recall_warning="too low",
    ),
    Facets(
        *("r1", "photos", 2),
        fields=[
            {
                "field": "stars",
                "type": "number",
                "images": 2,
                "distinct": 2,
                "values": [{"value": True, "count": 1}, {"value": 4.5, "count": 1}],
                "min": 0.1,
                "max": 2**63 - 1,
            }
        ],
    ),
    Table("r1", 2, 8, 1, ["stars"], True, {"00000.arrow": "0"}),
    Map("r1", "photos", 2, 48, 2, [{"id": "a", "x": 0.1, "y": 1.0}]),
]
all_documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)


def content(document: Document, *, checksum: bool = True) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(document.to_json())
    if not checksum:
        del value["checksum"]
    return value


def refusal(document: Document, data: bytes) -> str:
    with pytest.raises(PermanentError) as caught:
        type(document).from_json(data, NAME)
    assert caught.value.exit_code == ExitCode.PERMANENT
    message = str(caught.value)
    assert message.startswith(f"{NAME} is damaged or was changed (")
    assert message.endswith("restore it from a backup, or index again with a new --run")
    return message


@all_documents
def test_a_document_is_read_as_it_was_written(document: Document) -> None:
    assert type(document).from_json(document.to_json(), NAME) == document


@all_documents
def test_a_document_of_an_earlier_version_has_no_checksum(document: Document) -> None:
    data = json.dumps(content(document, checksum=False)).encode()
    assert type(document).from_json(data, NAME) == document


@all_documents
def test_each_field_of_another_type_is_named(document: Document) -> None:
    for field in fields(document):  # type: ignore[arg-type]
        for wrong in ([7], {"x": []}, "7", 7.5, None, True):
            value = content(document, checksum=False)
            if type(value[field.name]) is type(wrong) or field.name == "base":
                continue
            if isinstance(value[field.name], float) and isinstance(wrong, int) and not isinstance(wrong, bool):
                continue
            value[field.name] = wrong
            assert f"(field {field.name}" in refusal(document, json.dumps(value).encode())


@all_documents
def test_a_missing_and_an_unknown_field_are_named(document: Document) -> None:
    first = fields(document)[0].name  # type: ignore[arg-type]
    value = content(document)
    del value[first]
    assert f"(field {first}: field required" in refusal(document, json.dumps(value).encode())
    assert "(field imgaes: " in refusal(document, json.dumps({**content(document), "imgaes": 1}).encode())


@all_documents
def test_a_changed_value_is_noticed_by_the_checksum(document: Document) -> None:
    for name, value in content(document).items():
        if isinstance(value, bool):
            edited = {**content(document), name: not value}
        elif isinstance(value, int | float):
            edited = {**content(document), name: value + 1}
        elif isinstance(value, str):
            edited = {**content(document), name: f"{value}x"}
        else:
            continue
        assert "(field checksum: " in refusal(document, json.dumps(edited).encode())


def test_a_negative_count_is_named() -> None:
    value = {**content(DOCUMENTS[0], checksum=False), "shards": -1}
    assert "(field shards: input should be greater than or equal to 0)" in refusal(
        DOCUMENTS[0], json.dumps(value).encode()
    )


@all_documents
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: b"\xff" + data,
        lambda data: b"[" * 100_000,
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: data + data,
    ],
    ids=["empty", "cut", "zeros", "no UTF-8", "deep", "list", "null", "twice"],
)
def test_other_bytes_are_refused(document: Document, damage: Any) -> None:
    refusal(document, damage(document.to_json()))


def test_no_flipped_bit_passes() -> None:
    data = DOCUMENTS[1].to_json()
    for bit in range(0, 8 * len(data), 11):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PermanentError):
            ShardDone.from_json(bytes(damaged), NAME)
