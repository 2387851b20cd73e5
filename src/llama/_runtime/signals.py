"""Signals, as callbacks in an event loop, or as bytes in a process without a loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

SignalHandler: TypeAlias = Callable[[int, FrameType | None], object] | int | None
HAS_LOOP_SIGNALS = os.name != "nt"
SIGHUP: int | None = getattr(signal, "SIGHUP", None)


@contextmanager
def signal_handlers(callbacks: Mapping[int, Callable[[], object]]) -> Generator[None]:
    """Call back in the running loop for each of these signals; restore the earlier handlers afterwards."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in callbacks}
    try:
        for number, callback in callbacks.items():
            _add_handler(loop, number, callback)
        yield
    finally:
        for number, handler in before.items():
            _remove_handler(loop, number)
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _add_handler(loop: asyncio.AbstractEventLoop, number: int, callback: Callable[[], object]) -> None:
    if HAS_LOOP_SIGNALS:
        loop.add_signal_handler(number, callback)
        return

    def forward(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(callback)

    signal.signal(number, forward)


def _remove_handler(loop: asyncio.AbstractEventLoop, number: int) -> None:
    if HAS_LOOP_SIGNALS:
        loop.remove_signal_handler(number)


def restore_default_handlers(*numbers: int) -> None:
    """Restore the default action of these signals: the next one ends the process."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        _remove_handler(loop, number)
        signal.signal(number, signal.SIG_DFL)


class Wakeup:
    """Delivers signals as bytes on a socket, for a process without a loop; active within its block."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._before: dict[int, SignalHandler] = {}
        self._fd_before = -1
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Wakeup:
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noop_handler) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd_before)
        self._close()

    def _close(self) -> None:
        self.reader.close()
        self._writer.close()

    def received(self) -> list[int]:
        """Return the signals since the last call, in order of arrival."""
        try:
            return list(self.reader.recv(4096))
        except BlockingIOError:
            return []

    def block(self) -> set[int]:
        """Block these signals around a fork; returns the mask to pass to `unblock`."""
        return signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def detach_after_fork(self) -> None:
        """Detach in a forked process: the parent handles the signals; only SIGCHLD gets its default back."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._close()


def unblock(mask: set[int]) -> None:
    """Restore the mask that `block` returned."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _noop_handler(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: Python requires a handler for the signal to write its byte to the socket."""
