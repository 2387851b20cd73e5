"""CPU time and memory of a process and its children, from outside it (Linux)."""

from __future__ import annotations

import time
from pathlib import Path

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED: nanoseconds run by every thread, ended ones too


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of the process and its descendants, user and system, in seconds."""
    return sum(time.clock_gettime_ns(~process << 3 | PROCESS_CLOCK) for process in family(pid)) / 1e9


def settled_cpu_seconds(pid: int, limit: float = 1.0) -> float:
    """CPU time once the process rests, so that what it had left to do is counted; waits `limit` at most."""
    deadline = time.monotonic() + limit
    seen = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(0.03)
        now = cpu_seconds(pid)
        if now - seen < 0.0003:
            return now
        seen = now
    return seen


def memory_bytes(pid: int) -> int:
    """Memory that the process and its descendants hold (PSS: shared pages are split among their users)."""
    return sum(_pss(Path(f"/proc/{process}/smaps_rollup").read_text()) for process in family(pid))


def _pss(rollup: str) -> int:
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("smaps_rollup without a Pss line")
