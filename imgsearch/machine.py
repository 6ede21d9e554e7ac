"""What this process may use: the CPU share that its container grants, not the node's cores."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Of this process, where it is in a container."""


def cpus(root: Path = CGROUP) -> int:
    """How many threads can compute at once: the cgroup's CPU limit (v2, then v1) or the allowed cores, at least 1.

    A limit of 1.5 counts as 1: a thread that is throttled half of the time makes every other one wait for it.
    """
    return max(1, int(min(_quota(root), len(os.sched_getaffinity(0)))))


def limited(root: Path = CGROUP) -> bool:
    """Whether the cgroup has a CPU limit."""
    return _quota(root) != float("inf")


def tune_for_throughput() -> None:
    """Sets up this process for threads that compute all the time; call it before torch is imported.

    glibc's malloc keeps what is freed for the next allocation, instead of giving it back to the kernel: a model's
    activations are large blocks, allocated and freed at each call, and fresh from the kernel each of their pages
    faults once; half of the CPU time of a small model went there. With one arena, what one thread freed serves the
    others. Without glibc nothing is changed. Parameters: mallopt(3).

    And threads pass the interpreter's lock on after half a millisecond: each operator of a model takes it anew, and
    would otherwise wait up to 5 ms for one that decodes."""
    sys.setswitchinterval(5e-4)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-8, 1)  # M_ARENA_MAX


def release_freed_memory() -> None:
    """Gives back to the kernel what `tune_for_throughput` has kept: every few hundred images, so that the holes which
    they left in the heap do not add up."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


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
