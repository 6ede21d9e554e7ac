"""The reports of runs, made small enough for a stage's result: the controller cannot read the storage."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from imgsearch import stage
from imgsearch.errors import NotFound, PermanentError, UsageError
from imgsearch.runs.documents import Plan, Report
from imgsearch.runs.layout import RUN_ID, RunFolder
from imgsearch.storage import Storage

log = logging.getLogger(__name__)

READERS = 16
"""Threads that read from the storage."""


def read(storage: Storage, run: str) -> Report:
    """The report of a run. Raises UsageError for a run without a report."""
    name = RunFolder(run).report
    try:
        return Report.from_json(storage.get(name), name)
    except NotFound as error:
        raise UsageError(
            f"run {run} has no report: it is not finished, or does not exist; `controller status {run}` shows its "
            "progress"
        ) from error


def planned(storage: Storage, run: str) -> dict[str, Any]:
    """Whether the run has a plan, and its base."""
    name = RunFolder(run).plan
    try:
        plan = Plan.from_json(storage.get(name), name)
    except NotFound:
        return {"planned": False, "base": None}
    return {"planned": True, "base": plan.base}


def bad_images(storage: Storage, run: str) -> bytes:
    """The list of the run's bad images, as CSV. Raises UsageError for a run without such a list."""
    try:
        return storage.get(RunFolder(run).bad_list)
    except NotFound as error:
        raise UsageError(
            f"run {run} has no list of bad images: ingest writes it; `controller status {run}` shows its progress"
        ) from error


def read_all(storage: Storage) -> list[Report]:
    """All reports. One that cannot be read, such as that of another version, is logged and left out."""
    found, unreadable = try_all(storage)
    for error in unreadable:
        log.warning("%s", error)
    return found


def try_all(storage: Storage) -> tuple[list[Report], list[PermanentError]]:
    """All reports, and the errors of those that cannot be read."""
    runs = filter(RUN_ID.fullmatch, storage.folders("runs"))
    with ThreadPoolExecutor(READERS, "read") as readers:
        results = list(readers.map(partial(_read, storage), runs))
    return [result for result in results if isinstance(result, Report)], [
        result for result in results if isinstance(result, PermanentError)
    ]


def last_published(found: Iterable[Report]) -> dict[str, Report]:
    """The report of the last published run of each index."""
    return {report.index: report for report in sorted(found, key=lambda report: report.published)}


def compact(report: Report) -> dict[str, Any]:
    """The report as a stage's result.

    If it is too large, it loses the examples of bad images, then the longest reasons, then the longest kinds of skipped
    files, until it fits. `left_out` has the number of each."""
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
    """As many runs as a stage's result can hold, the last published first."""
    ordered = sorted(reports, key=lambda report: report.published, reverse=True)
    runs: list[dict[str, Any]] = []
    result = {"runs": runs, "left_out": len(ordered)}
    for report in ordered:
        runs.append(_entry(report))
        if stage.size(result) > stage.RESULT_LIMIT:
            runs.pop()
            break
    return {**result, "left_out": len(ordered) - len(runs)}


def _entry(report: Report) -> dict[str, Any]:
    return {
        "run": report.run,
        "index": report.index,
        "images": report.images,
        "bad": report.bad,
        "published": report.published,
        "source": report.source,
    }


def _read(storage: Storage, run: str) -> Report | PermanentError | None:
    name = RunFolder(run).report
    try:
        data = storage.get(name)
    except NotFound:  # the run has failed, or is not finished
        return None
    try:
        return Report.from_json(data, name)
    except PermanentError as error:
        return error
