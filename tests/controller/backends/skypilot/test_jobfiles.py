"""The files of a Job on rented machines: a damaged one is refused by its name and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.backends.files import write_json
from controller.backends.skypilot.attempts import IndexState, IndexStep
from controller.backends.skypilot.jobfiles import NEVER, JobFolder, StoredJob
from imgsearch.errors import PermanentError

JOB: dict[str, Any] = {
    "metadata": {"name": "sky-r1-embed", "labels": {}, "annotations": {}},
    "spec": {"completions": 1, "parallelism": 1, "template": {}},
}
INDEXES = {0: IndexState(IndexStep.DONE, succeeded=True, ended="2026-01-01T00:00:00+00:00", result={"images": 3})}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = JobFolder(tmp_path)
    files.write_job(JOB)
    files.write_indexes(INDEXES)
    return tmp_path


def test_a_job_is_read_as_it_was_written(folder: Path) -> None:
    assert JobFolder(folder).read() == StoredJob(JOB, INDEXES)
    assert JobFolder(folder).checked_at() == NEVER


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "indexes.json is damaged or was changed (field looked: field required)"),
        ({"looked": "yesterday", "indexes": {}}, "indexes.json is damaged or was changed (field looked: "),
        ({"looked": "2026-01-01T00:00:00Z", "indexes": {"x": {}}}, "indexes.json is damaged or was changed (field "),
        ({"looked": "2026-01-01T00:00:00Z", "indexes": {"0": {"step": "flies"}}}, "(field step: "),
        ({"looked": "2026-01-01T00:00:00Z", "indexes": {"0": {"failures": "7"}}}, "(field failures: "),
    ],
)
def test_a_damaged_document_is_named_with_its_field(folder: Path, document: dict[str, Any], problem: str) -> None:
    write_json(folder / "indexes.json", document)
    with pytest.raises(PermanentError) as caught:
        JobFolder(folder).read()
    assert str(folder) in str(caught.value)
    assert problem in str(caught.value)
