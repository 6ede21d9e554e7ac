from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgsearch.machine import cpus, memory


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 16), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("6400000 100000", 16)],
)
def test_cgroup_v2(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert cpus(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("400000", 4), ("250000", 2), ("10000", 1)])
def test_cgroup_v1(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpus(tmp_path) == expected


def test_without_a_cgroup_the_allowed_cores_count(tmp_path: Path) -> None:
    assert cpus(tmp_path) == 16


@pytest.mark.parametrize(("file", "unlimited"), [("memory.max", "max"), ("memory/memory.limit_in_bytes", str(2**63))])
def test_the_memory_is_that_of_the_machine_or_the_limit_of_the_cgroup(
    tmp_path: Path, file: str, unlimited: str
) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory(tmp_path) == machine
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("1000000\n")
    assert memory(tmp_path) == 1_000_000
    (tmp_path / file).write_text(f"{unlimited}\n")
    assert memory(tmp_path) == machine
