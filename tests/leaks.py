"""What a test leaves behind: descriptors, threads, child processes, tasks."""

import asyncio.runners
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

PATIENCE = 2.0  # seconds that closing may take once a test has ended
Left = frozenset[str]


def descriptors() -> Left:
    """Open file descriptors with what they stand for; empty where the system cannot tell."""
    folder = next((folder for folder in ("/proc/self/fd", "/dev/fd") if os.path.isdir(folder)), None)
    if folder is None:
        return frozenset()
    found: list[str] = []
    for name in os.listdir(folder):
        try:
            found.append(f"descriptor {name} ({_stands_for(folder, name)})")
        except OSError:  # the listing's own descriptor
            continue
    return frozenset(found)


def _stands_for(folder: str, name: str) -> str:
    if folder.startswith("/proc"):
        return os.readlink(f"{folder}/{name}")
    facts = os.fstat(int(name))
    return f"mode {facts.st_mode:o}, inode {facts.st_ino}"


def threads() -> Left:
    return frozenset(f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate())


def children() -> Left:
    """Child processes, zombies too, that the main thread started; empty where the system cannot tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return frozenset(f"child process {pid}" for pid in file.read().split())
    except OSError:
        return frozenset()


def everything() -> Left:
    return descriptors() | threads() | children()


def left_since(before: Left, look: Callable[[], Left] = everything, patience: float = PATIENCE) -> list[str]:
    """What is there now and was not before; garbage is collected, and closing gets a bounded time to end."""
    if not (left := look() - before):
        return []
    gc.collect()
    deadline = time.monotonic() + patience
    while (left := look() - before) and time.monotonic() < deadline:
        time.sleep(0.005)
    return sorted(left)


@contextmanager
def complaints() -> Generator[list[str]]:
    """Collects what asyncio says of tasks: those a loop had to cancel at its end, and those nobody looked at.

    The innermost block gets it, so a test that means to provoke some puts its own around them.
    """
    found: list[str] = []
    _collectors.append(found)
    if len(_collectors) == 1:
        _runners._cancel_all_tasks = _note_and_cancel
        logging.getLogger("asyncio").addHandler(_handler)
    try:
        yield found
    finally:
        _collectors.remove(found)
        if not _collectors:
            _runners._cancel_all_tasks = _cancel_all
            logging.getLogger("asyncio").removeHandler(_handler)


def _note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
    _collectors[-1].extend(f"task {task!r}" for task in asyncio.all_tasks(loop))
    _cancel_all(loop)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _collectors[-1].append(f"asyncio's complaint: {record.getMessage()}")


_runners: Any = asyncio.runners
_collectors: list[list[str]] = []
_handler = _Handler(logging.ERROR)
_cancel_all: Callable[[asyncio.AbstractEventLoop], None] = _runners._cancel_all_tasks
