"""Annotations of a Job."""

from __future__ import annotations

import json

import pytest

from controller.jobs.annotations import JobProgress, JobRecord, Overflow
from controller.jobs.usage import Gpu
from imgsearch.errors import PermanentError


def test_of_many_shards_that_failed_only_the_first_say_why() -> None:
    annotation = Overflow(failed=dict.fromkeys(range(200), "x" * 9000)).to_json()
    text = json.dumps(annotation)
    assert len(text) < 60_000
    assert Overflow.from_json(text, "j").failed.keys() == {*range(200)}


def test_a_record_is_read_as_it_was_written() -> None:
    record = JobRecord({"shards": 3}, 30, 2, {Gpu("L4", None): 1.5}, {7: "damaged"})
    assert JobRecord.from_json(json.dumps(record.to_json()), "j") == record
    overflow = Overflow(frozenset({0, 1, 5}), {7: "damaged"}, 30, 2, frozenset({2}), {Gpu("L4", True): 1.0}, "2026")
    assert Overflow.from_json(json.dumps(overflow.to_json()), "j") == overflow
    progress = JobProgress(30, 2, {Gpu("L4", None): 1.5})
    assert JobProgress.from_json(json.dumps(progress.to_json()), "j") == progress
    assert (JobRecord.from_json("{}", "j"), Overflow.from_json("{}", "j")) == (JobRecord(), Overflow())
    assert JobProgress.from_json("{}", "j") == JobProgress()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "invalid JSON"),
        ("[]", "an object"),
        ('{"images": "many"}', "field images: "),
        ('{"gpu_hours": [{"accelerator": "L4"}]}', "field gpu_hours.0.spot: "),
    ],
)
@pytest.mark.parametrize(
    ("type", "name"),
    [
        (JobRecord, "the record of Job j"),
        (JobProgress, "the progress of Job j"),
        (Overflow, "the overflow of Job j"),
    ],
)
def test_an_edited_annotation_is_named_with_its_field_and_the_solution(
    type: type[JobRecord] | type[JobProgress] | type[Overflow], name: str, text: str, problem: str
) -> None:
    with pytest.raises(PermanentError) as caught:
        type.from_json(text, "j")
    assert str(caught.value).startswith(f"{name} is damaged or was changed (")
    assert problem in str(caught.value)
    assert "`controller cleanup`" in str(caught.value)


@pytest.mark.parametrize("text", ['{"errors": {"x": "damaged"}}', '{"failed": {"x": ""}}', '{"succeeded": "1-x"}'])
def test_an_index_that_is_no_number_is_refused(text: str) -> None:
    read = JobRecord.from_json if "errors" in text else Overflow.from_json
    with pytest.raises(PermanentError, match="damaged or was changed"):
        read(text, "j")
