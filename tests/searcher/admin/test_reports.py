"""Reports as the controller gets them: `python -m searcher report`, `bad` and `runs`, piece by piece and whole."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imgsearch import stage
from imgsearch.errors import UsageError
from imgsearch.runs.documents import Report
from imgsearch.runs.layout import RunFolder
from imgsearch.storage import Storage
from searcher.admin import reports
from tests.programs import program_env

REPORT = Report(
    run="r1",
    index="photos",
    source="/photos",
    model="m",
    fingerprint="f",
    dim=4,
    collection="photos-r1",
    published="2026-01-01T00:00:00+00:00",
    shards=2,
    images=20,
    bad=2,
    kept=0,
    removed=0,
    skipped={".txt files": 1},
    bad_reasons={"decode: truncated": 1, "read: it is empty": 1},
    bad_examples=[{"key": "ü, 1.jpg", "stage": "decode", "reason": "truncated"}],
    embed_seconds=3.0,
    embed_stages={"encode": 2.0},
    embed_bytes=200,
    ingest_seconds=1.0,
    ingest_stages={"read": 0.1, "store": 0.7, "verify": 0.1, "publish": 0.1},
    vectors_added=20,
    verified={"counted": 20, "sampled": 20, "found_itself": 20},
)
LONG = [f"decode: {number:02d} " + "é" * (10 * number) for number in range(20)]


def report(**changes: Any) -> Report:
    return dataclasses.replace(REPORT, **changes)


def test_a_report_that_fits_is_complete() -> None:
    result = reports.compact(REPORT)
    assert result.pop("left_out") == {"bad_examples": 0, "bad_reasons": 0, "skipped": 0}
    assert Report(**result) == REPORT


def test_of_one_that_does_not_the_examples_go_first() -> None:
    result = reports.compact(report(bad_examples=[{"key": "x" * 400, "stage": "read", "reason": "gone"}] * 10))
    assert result["bad_examples"] == []
    assert result["bad_reasons"] == REPORT.bad_reasons
    assert result["left_out"] == {"bad_examples": 10, "bad_reasons": 0, "skipped": 0}


def test_and_then_the_longest_reasons_until_it_fits() -> None:
    result = reports.compact(report(bad_reasons=dict.fromkeys(LONG, 3)))
    reasons = list(result["bad_reasons"])
    assert reasons == LONG[: len(reasons)]
    assert result["left_out"] == {"bad_examples": 1, "bad_reasons": 20 - len(reasons), "skipped": 0}
    assert stage.size(result) <= stage.RESULT_LIMIT
    with_one_more = {**result, "bad_reasons": {**result["bad_reasons"], LONG[len(reasons)]: 3}}
    assert stage.size(with_one_more) > stage.RESULT_LIMIT, "there was room for one more"


def test_and_then_what_was_passed_over() -> None:
    skipped_files = {f".{'x' * 50}{number} files": 1 for number in range(100)}
    result = reports.compact(report(bad_reasons=dict.fromkeys(LONG, 3), skipped=skipped_files))
    assert stage.size(result) <= stage.RESULT_LIMIT
    assert result["bad_reasons"] == {}
    assert len(result["skipped"]) + result["left_out"]["skipped"] == 100
    assert result["skipped"]


def test_as_many_runs_as_fit_are_listed_the_newest_first() -> None:
    all_reports = [report(run=f"r{day}", published=f"2026-01-{day:02d}T00:00:00+00:00") for day in range(1, 29)]
    result = reports.newest(all_reports[14:] + all_reports[:14])
    names = [line["run"] for line in result["runs"]]
    assert names == [f"r{day}" for day in range(28, 28 - len(names), -1)]
    assert len(names) > 15
    assert result["left_out"] == 28 - len(names)
    assert stage.size(result) <= stage.RESULT_LIMIT
    assert result["runs"][0] == {
        "run": "r28",
        "index": "photos",
        "images": 20,
        "bad": 2,
        "published": "2026-01-28T00:00:00+00:00",
        "source": "/photos",
    }


def test_few_runs_are_listed_all() -> None:
    assert reports.newest([REPORT])["left_out"] == 0
    assert reports.newest([]) == {"runs": [], "left_out": 0}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path.as_uri())


def test_runs_without_a_report_and_reports_of_another_version_are_passed_over(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put(RunFolder("r1").report, REPORT.to_json())
    storage.put(RunFolder("r2").plan, b"{}")
    storage.put(RunFolder("r3").report, b'{"run": "r3"}')
    storage.put("runs/No_Run/x", b"")
    assert reports.read_all(storage) == [REPORT]
    assert "runs/r3/report.json is damaged or was changed (field index: field required)" in caplog.text


def test_a_run_without_a_report_is_named(storage: Storage) -> None:
    with pytest.raises(UsageError, match="run r2 has no report"):
        reports.read(storage, "r2")


class TestAsProcesses:
    def call(self, verb: str, storage: Storage, run: str = "r1") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "searcher", verb],
            env=program_env({"IMGSEARCH_STORAGE_URI": storage.uri, "IMGSEARCH_RUN_ID": run}),
            capture_output=True,
            timeout=100,
        )

    def test_bad_writes_the_list_as_a_line_that_survives_the_log_of_a_container(self, storage: Storage) -> None:
        bad_list = 'key,stage,reason\r\n"a\nb\r\n.jpg",read,it is empty\r\n"ü, 1.jpg",decode,truncated\r\n'
        storage.put(RunFolder("r1").bad_list, bad_list.encode())
        completed = self.call("bad", storage)
        assert completed.returncode == 0, completed.stderr
        line, last = (line.removesuffix(b"\r") for line in completed.stdout.removesuffix(b"\n").split(b"\n"))
        assert json.loads(line) == bad_list
        assert json.loads(last) == {"run": "r1", "bytes": len(line)}
        rows = list(csv.DictReader(io.StringIO(json.loads(line), newline="")))
        assert [row["key"] for row in rows] == ["a\nb\r\n.jpg", "ü, 1.jpg"]

    def test_a_report_and_the_list_of_runs_are_results(self, storage: Storage) -> None:
        storage.put(RunFolder("r1").report, REPORT.to_json())
        assert json.loads(self.call("report", storage).stdout) == reports.compact(REPORT)
        assert json.loads(self.call("runs", storage).stdout) == reports.newest([REPORT])

    @pytest.mark.parametrize(("verb", "sentence"), [("report", "has no report"), ("bad", "has no list of bad images")])
    def test_a_run_that_is_not_done_is_a_usage_error(self, storage: Storage, verb: str, sentence: str) -> None:
        completed = self.call(verb, storage)
        assert completed.returncode == 2
        assert sentence in json.loads(completed.stdout)["error"]
