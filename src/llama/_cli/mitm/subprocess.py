"""A command that runs beside a proxy: its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from functools import partial

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
EXIT_SIGNAL_BASE = 128
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_OF_THE_KEYBOARD = {getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)}


class Child:
    """A command in a process of its own, which has this one's terminal, input and output."""

    def __init__(self, command: Sequence[str], say: Callable[[str], object]) -> None:
        self._command = command
        self._say = say
        self._process: Process | None = None
        self._early: list[int] = []

    @property
    def has_begun(self) -> bool:
        """Whether it runs, or did."""
        return self._process is not None

    def callbacks(self) -> dict[int, Callable[[], object]]:
        """What passes each signal on; one that is ignored here, as by nohup, is so by the command too."""
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        return {number: partial(self.signal, number) for number in heard}

    def signal(self, number: int) -> None:
        """Pass a signal on; one that comes before it has begun keeps it from that."""
        if self._process is None:
            self._early.append(number)
        elif number not in _OF_THE_KEYBOARD or not _has_terminal():
            _send(self._process, number)

    async def run(self, variables: Mapping[str, str]) -> int:
        """Run it to its end: its exit code, 128 and the number of the signal that ended it, 126, 127."""
        if self._early:
            return EXIT_SIGNAL_BASE + self._early[0]
        try:
            process = await asyncio.create_subprocess_exec(*self._command, env=variables)
        except OSError as error:
            self._say(f"cannot run {self._command[0]}: {error.strerror or error}")
            return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
        self._process = process
        for number in self._early:
            _send(process, number)
        code = await process.wait()
        return EXIT_SIGNAL_BASE - code if code < 0 else code


def _send(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _has_terminal() -> bool:
    """Whether the keyboard's signals go to this process, and so to the command, which is in the same group."""
    if sys.platform == "win32":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
