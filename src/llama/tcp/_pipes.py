"""Pipes for splice, within a budget: the system gives an ordinary user only so many pages."""

from __future__ import annotations

import contextlib
import fcntl
import os

SIZE = 262144
SMALLEST = 65536
BUDGET = 128

_open = 0


def take() -> tuple[int, int] | None:
    """An empty pipe, read end first, or None when the budget or the system has none."""
    global _open
    if _open >= BUDGET:
        return None
    try:
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # over the user's share: the default size may do
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, SIZE)
    if fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ) < SMALLEST:
        _close(pipe)
        return None
    _open += 1
    return pipe


def give(pipe: tuple[int, int]) -> None:
    """Close a pipe that `take` gave."""
    global _open
    _open -= 1
    _close(pipe)


def _close(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
