"""CPU time and memory of a process and its children, from outside it (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED: nanoseconds run by every thread, ended ones too


TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                found += map(int, task.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of the process and its descendants, user and system, in seconds.

    Descendants that have ended count too, in ticks of the system's clock, once they were waited for.
    """
    return sum(_own_seconds(process) + _ended_seconds(process) for process in family(pid))


def _own_seconds(pid: int) -> float:
    try:
        return time.clock_gettime_ns(~pid << 3 | PROCESS_CLOCK) / 1e9
    except OSError:  # it has just ended
        return 0.0


def _ended_seconds(pid: int) -> float:
    """CPU time of the process's children that it has waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[13:15]
    return (int(user) + int(system)) / TICK


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
