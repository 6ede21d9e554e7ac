"""What this process may use: the CPU share that its container grants, not the node's cores."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many threads can compute at once: the cgroup's CPU limit (v2, then v1) or the allowed cores, at least 1.

    A limit of 1.5 counts as 1: a thread that is throttled half of the time makes every other one wait for it.
    """
    return max(1, int(min(_quota(root), len(os.sched_getaffinity(0)))))


def keep_freed_memory() -> None:
    """Tells glibc's malloc to keep what is freed for the next allocation, instead of giving it back to the kernel.

    A model's activations are some large blocks that are allocated and freed at each call; fresh from the kernel, each
    of their pages faults once. Half of the CPU time of a small model went there. One arena, so that what one thread
    freed serves the others. Without glibc nothing is changed. Parameters: mallopt(3)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-8, 1)  # M_ARENA_MAX


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
