"""What this process may use: the CPU share that its container grants, not the node's cores."""

from __future__ import annotations

import os
from pathlib import Path


def cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many threads can compute at once: the cgroup's CPU limit (v2, then v1) or the allowed cores, at least 1.

    A limit of 1.5 counts as 1: a thread that is throttled half of the time makes every other one wait for it.
    """
    return max(1, int(min(_quota(root), len(os.sched_getaffinity(0)))))


def _quota(root: Path) -> float:
    """The CPU limit in cores; infinite where there is none.

    Files: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and scheduler/sched-bwc.html (v1)."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return float("inf")
    if quota in ("max", "-1"):
        return float("inf")
    return int(quota) / int(period)
