"""Pipes for splice, within a budget: the system limits the pipe pages of an ordinary user."""

from __future__ import annotations

import contextlib
import fcntl
import os

PIPE_SIZE = 262144
MIN_PIPE_SIZE = 65536
MAX_PIPES = 128

_open = 0


def acquire() -> tuple[int, int] | None:
    """Return an empty pipe, read end first; None if the budget is used up or the system refuses one."""
    global _open
    if _open >= MAX_PIPES:
        return None
    try:
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # above the user's limit: the default size may suffice
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    if fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ) < MIN_PIPE_SIZE:
        _close(pipe)
        return None
    _open += 1
    return pipe


def release(pipe: tuple[int, int]) -> None:
    """Close a pipe from `acquire`."""
    global _open
    _open -= 1
    _close(pipe)


def _close(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
