"""CPUs and memory of this process: the CPU limit of its container, not the node's cores."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""The cgroup of this process, in a container."""


def cpus(root: Path = CGROUP) -> int:
    """The number of threads that can compute at once: the cgroup's CPU limit (v2, then v1) or the allowed cores. At
    least 1.

    A limit of 1.5 counts as 1: of 2 threads, one would be throttled half of the time, and the other would wait for it.
    """
    return max(1, int(min(_quota(root), len(os.sched_getaffinity(0)))))


def memory(root: Path = CGROUP) -> int:
    """The bytes of memory that this process may use: the cgroup's limit (v2, then v1) or the machine's memory."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (root / file).read_text().strip()
        except OSError:
            continue
        return machine if limit == "max" else min(machine, int(limit))
    return machine


def limited(root: Path = CGROUP) -> bool:
    """Whether the cgroup has a CPU limit."""
    return _quota(root) != float("inf")


def tune_for_throughput() -> None:
    """Sets up this process for threads that compute all the time. Call it before torch is imported.

    glibc's malloc then keeps freed memory for the next allocation instead of returning it to the kernel. The
    activations of a model are large blocks, allocated and freed at each call; if they come from the kernel, each page
    faults once, which took half of the CPU time of a small model. With one arena, all threads share the freed memory.
    Without glibc nothing changes. Parameters: mallopt(3).

    Threads then release the interpreter's lock after 0.5 ms. Each operator of a model takes the lock, and would
    otherwise wait up to 5 ms for a thread that decodes."""
    sys.setswitchinterval(5e-4)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-8, 1)  # M_ARENA_MAX


def release_freed_memory() -> None:
    """Returns the memory to the kernel that malloc keeps after `tune_for_throughput`. Call it every few hundred images,
    or a fragmented heap grows."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _quota(root: Path) -> float:
    """The CPU limit in cores; infinite if there is none.

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
