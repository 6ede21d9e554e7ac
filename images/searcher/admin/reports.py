"""What the controller gets of reports: they are read where the storage is, and must fit a stage's result."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from imgsearch import stage
from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.runs.documents import Report
from imgsearch.runs.layout import RUN_ID, RunFolder
from imgsearch.storage import Storage

log = logging.getLogger(__name__)

READERS = 16
"""Threads that wait for a bucket."""


def read(storage: Storage, run: str) -> Report:
    """The report of a run; raises UsageError where it has none."""
    name = RunFolder(run).report
    try:
        return Report.from_json(storage.get(name), name)
    except NotFound as error:
        raise UsageError(
            f"run {run} has no report, since it is not done (or there is no such run); `controller status {run}` "
            "says how far it is"
        ) from error


def read_all(storage: Storage) -> list[Report]:
    """The reports of all runs that have one; of another version's only the log speaks."""
    runs = filter(RUN_ID.fullmatch, storage.folders("runs"))
    with ThreadPoolExecutor(READERS, "read") as readers:
        return [report for report in readers.map(partial(_read, storage), runs) if report]


def compact(report: Report) -> dict[str, Any]:
    """The report in a stage's result. Until it fits, the examples of bad images are left out, then the longest of the
    reasons and of what was passed over; `left_out` says how many."""
    result = dataclasses.asdict(report)
    left_out = result["left_out"] = {"bad_examples": 0, "bad_reasons": 0, "skipped": 0}
    if stage.size(result) > stage.RESULT_LIMIT:
        left_out["bad_examples"] = len(result["bad_examples"])
        result["bad_examples"] = []
    for name in ("bad_reasons", "skipped"):
        while stage.size(result) > stage.RESULT_LIMIT and result[name]:
            del result[name][max(result[name], key=len)]
            left_out[name] += 1
    return result


def newest(reports: Iterable[Report]) -> dict[str, Any]:
    """As many runs as fit a stage's result, the one that was published last first."""
    ordered = sorted(reports, key=lambda report: report.published, reverse=True)
    runs: list[dict[str, Any]] = []
    result = {"runs": runs, "left_out": len(ordered)}
    for report in ordered:
        runs.append(_line(report))
        if stage.size(result) > stage.RESULT_LIMIT:
            runs.pop()
            break
    return {**result, "left_out": len(ordered) - len(runs)}


def _line(report: Report) -> dict[str, Any]:
    return {
        "run": report.run,
        "index": report.index,
        "images": report.images,
        "bad": report.bad,
        "published": report.published,
        "source": report.source,
    }


def _read(storage: Storage, run: str) -> Report | None:
    name = RunFolder(run).report
    try:
        data = storage.get(name)
    except NotFound:  # it is on its way, or failed
        return None
    try:
        return Report.from_json(data, name)
    except PermanentError as error:
        log.warning("%s", error)
        return None
