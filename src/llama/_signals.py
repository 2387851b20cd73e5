"""Signals: as callbacks of a loop, and as bytes to a process that has none."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

LOOPS_TAKE_SIGNALS = os.name != "nt"
HANGUP: int | None = getattr(signal, "SIGHUP", None)


@contextmanager
def handled(callbacks: Mapping[int, Callable[[], object]]) -> Generator[None]:
    """Call back in the running loop for each of these signals; the earlier handlers return afterwards."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in callbacks}
    try:
        for number, callback in callbacks.items():
            _handle(loop, number, callback)
        yield
    finally:
        for number, handler in before.items():
            _unhandle(loop, number)
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _handle(loop: asyncio.AbstractEventLoop, number: int, callback: Callable[[], object]) -> None:
    if LOOPS_TAKE_SIGNALS:
        loop.add_signal_handler(number, callback)
        return

    def forward(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(callback)

    signal.signal(number, forward)


def _unhandle(loop: asyncio.AbstractEventLoop, number: int) -> None:
    if LOOPS_TAKE_SIGNALS:
        loop.remove_signal_handler(number)


def let_go(*numbers: int) -> None:
    """What comes next does what the system does by default: it ends the process."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        _unhandle(loop, number)
        signal.signal(number, signal.SIG_DFL)
