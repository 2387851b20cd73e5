"""Single keys from the terminal that a program runs in."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

if sys.platform != "win32":
    import termios
else:
    import msvcrt

Pressed: TypeAlias = Callable[[str], object]
_NAMES = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up", "\x1b[B": "down", "\x1bOB": "down", "j": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down", "\x1b": "escape",
}  # fmt: skip
_OF_WINDOWS = {"H": "up", "P": "down", "I": "page up", "Q": "page down"}


def names(text: str) -> list[str]:
    """The keys that a terminal sent: a letter is itself."""
    found: list[str] = []
    while text:
        length = next(
            (len(each) for each in sorted(_NAMES, key=len, reverse=True) if text.startswith(each)), 1
        )
        found.append(_NAMES.get(text[:length], text[:length]))
        text = text[length:]
    return found


if sys.platform != "win32":

    @contextmanager
    def keys(pressed: Pressed, terminal: int | None = None) -> Generator[bool]:
        """Call back for each key within the block; False where there is no keyboard. It is as it was afterwards."""
        terminal = _stdin() if terminal is None else terminal
        if terminal is None or not _is_ours(terminal):
            yield False
            return
        before = termios.tcgetattr(terminal)
        now = termios.tcgetattr(terminal)
        now[3] &= ~(termios.ICANON | termios.ECHO)
        now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                data = os.read(terminal, 64)
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(terminal)
            for each in names(data.decode(errors="replace")):
                pressed(each)

        termios.tcsetattr(terminal, termios.TCSANOW, now)
        try:
            loop.add_reader(terminal, read)
            yield True
        finally:
            loop.remove_reader(terminal)
            termios.tcsetattr(terminal, termios.TCSANOW, before)

    def poll(pressed: Pressed) -> None:
        """Keys come by themselves here."""

    def _is_ours(terminal: int) -> bool:
        """Whether this program is in the foreground: one behind it would be stopped for what it changes."""
        try:
            return os.isatty(terminal) and os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:
            return False

else:

    @contextmanager
    def keys(pressed: Pressed, terminal: int | None = None) -> Generator[bool]:
        """Keys are asked for by `poll` here."""
        yield _stdin() is not None and sys.stdin.isatty()

    def poll(pressed: Pressed) -> None:
        """Call back for the keys that have come."""
        while msvcrt.kbhit():
            key = msvcrt.getwch()
            if key in "\0\xe0":
                key = _OF_WINDOWS.get(msvcrt.getwch(), "")
            for each in names(key) if len(key) == 1 else [key]:
                pressed(each)


def _stdin() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None
