from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.runs.documents import Plan
from imgsearch.runs.layout import RunFolder, collection_name
from imgsearch.settings import RunSettings, Settings, StorageSettings, StoreSettings
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, Record, open_store
from tests.programs import program_env
from tests.searcher.admin.test_reports import REPORT


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        storage=StorageSettings(uri=(tmp_path / "storage").as_uri()),
        store=StoreSettings(url=f"chroma+file://{tmp_path}/chroma"),
    )


def ingested(settings: Settings, run: str, *, index: str = "photos", base: str | None = None) -> Pointer:
    """Writes the plan of a run, and its collection with one vector."""
    plan = Plan(run, index, "/photos", "a/b", shards=1, images=1, bytes=1, part_images=1, base=base)
    Storage(settings.storage.uri).put(RunFolder(run).plan, plan.to_json())
    name = collection_name(index, run)
    store = open_store(settings.store.url)
    store.create(name, dim=2, vectors=100)
    store.add(name, [Record("1", {"n": 1}, np.array([1, 0], np.float32))])
    store.close()
    return Pointer(index, run, name, "a/b", "f", 2, 1, "/photos", "2026-01-01")


def publish(settings: Settings, pointer: Pointer) -> None:
    store = open_store(settings.store.url)
    store.publish(pointer)
    store.close()


def remaining(settings: Settings) -> tuple[list[str], list[str]]:
    """The collections and the run folders that exist."""
    store = open_store(settings.store.url)
    collections = store.collections()
    store.close()
    return sorted(collections), sorted(Storage(settings.storage.uri).folders("runs"))


def delete_run(settings: Settings, run: str) -> tuple[int, dict[str, Any]]:
    """Runs the program as the controller does, with nothing but the run's id."""
    run_settings = replace(settings, run=RunSettings(id=run))
    completed = subprocess.run(
        [sys.executable, "-m", "searcher", "forget"],
        env=program_env(run_settings.to_env()),
        capture_output=True,
        text=True,
    )
    return completed.returncode, json.loads(completed.stdout.splitlines()[-1])


def test_the_collection_and_the_folder_of_a_run_are_deleted(settings: Settings) -> None:
    ingested(settings, "r1", index="holiday-photos")
    ingested(settings, "r2", index="holiday-photos")
    assert delete_run(settings, "r1") == (0, {"run": "r1", "objects": 1})
    assert remaining(settings) == (["holiday-photos-r2"], ["r2"])


def test_a_run_that_does_not_exist_is_a_usage_error(settings: Settings) -> None:
    code, result = delete_run(settings, "r9")
    assert code == 2
    assert "'r9' does not exist" in result["error"]


def test_a_run_that_an_index_needs_is_kept(settings: Settings) -> None:
    for run, base in (("r1", None), ("r2", "r1"), ("r3", None)):
        last = ingested(settings, run, base=base)
    second = replace(last, run="r2", collection="photos-r2")
    publish(settings, replace(last, previous=second))
    files = remaining(settings)
    for run in ("r1", "r2", "r3"):
        code, result = delete_run(settings, run)
        assert code == 2
        assert re.search(f"run {run} .*index photos", result["error"])
    assert remaining(settings) == files


def damage_plan(settings: Settings, run: str) -> None:
    storage = Storage(settings.storage.uri)
    storage.put(RunFolder(run).plan, storage.get(RunFolder(run).plan).replace(b'"images": 1', b'"images": 7'))


def test_a_run_with_a_damaged_plan_is_deleted_by_the_index_of_its_report(settings: Settings) -> None:
    ingested(settings, "r1", index="holiday-photos")
    publish(settings, ingested(settings, "r2", index="holiday-photos"))
    report = replace(REPORT, run="r1", index="holiday-photos")
    Storage(settings.storage.uri).put(RunFolder("r1").report, report.to_json())
    damage_plan(settings, "r1")
    assert delete_run(settings, "r1") == (0, {"run": "r1", "objects": 2})
    assert remaining(settings) == (["holiday-photos-r2"], ["r2"])


def test_a_run_with_a_damaged_plan_and_no_report_is_kept(settings: Settings) -> None:
    """Its index is unknown, and with it the collection: the name of another run may end with that of this one."""
    ingested(settings, "r1", index="holiday-photos")
    damage_plan(settings, "r1")
    code, result = delete_run(settings, "r1")
    assert code == 4
    assert result["error"] == (
        "runs/r1/plan.json is damaged or was changed (field checksum: it is not that of the other fields), so the "
        "index of run r1 is unknown: delete the folder runs/r1 of the storage, and the run's collection in the store "
        "(candidates: holiday-photos-r1)"
    )
    assert remaining(settings) == (["holiday-photos-r1"], ["r1"])
