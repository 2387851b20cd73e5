"""Exchanges as they pass, live on a terminal: for the extra `inspect`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TextIO

import rich.console
from rich.live import Live
from rich.text import Text

from llama._cli.mitm.console.flow_store import FlowStore, flow_observers
from llama._cli.mitm.console.keys import keys, poll
from llama._cli.mitm.console.log_buffer import LogBuffer, capture_output
from llama._cli.mitm.console.view import Frame, View, escaped
from llama._core.shutdown import detached_task

REFRESH_INTERVAL = 0.1
IDLE_REFRESH_INTERVAL = 1.0
SHUTDOWN_TIMEOUT = 1.0
KEYS = "q: quit  p: pause  c: clear  up/down: headers"


class Console:
    """A table of the latest exchanges, which goes on while they do.

    `flow_observers` is what sees them.
    """

    def __init__(
        self, file: TextIO | None = None, *, most: int = 500, console: rich.console.Console | None = None
    ) -> None:
        self.console = console or rich.console.Console(file=file or sys.stdout, highlight=False)
        self.flows = FlowStore(most)
        self.watch = flow_observers(self.flows)
        unicode = (self.console.encoding or "").lower().startswith("utf")
        self.view = View(self.flows, "…" if unicode else "...")
        self.log_buffer = LogBuffer()
        self._woken: asyncio.Event | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether it is a terminal on which things can move."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    async def show(self) -> None:
        """Show the table until cancelled; the terminal is then as it was, and the last table stays on it."""
        self._woken = asyncio.Event()
        live = Live(
            self._frame(),
            console=self.console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        with capture_output(self.log_buffer), keys(self.press) as has_keys:
            self.view.keys = KEYS if has_keys else ""
            try:
                live.start()
                await self._refresh(live, self._woken)
            finally:
                await self._end(live)
        self._print(self.log_buffer.take())

    async def _refresh(self, live: Live, woken: asyncio.Event) -> None:
        quiet, size = 0.0, self.console.size
        while True:
            if (
                self._has_changes()
                or self.console.size != size
                or (quiet >= IDLE_REFRESH_INTERVAL and self.flows.going)
            ):
                quiet, size = 0.0, self.console.size
                self.flows.changed = False
                frame, lines = self._frame(), self.log_buffer.take()
                # A terminal that is held (Ctrl-S) takes nothing: then this waits, and nothing else does.
                self._writing = detached_task(asyncio.to_thread(self._write, live, frame, lines))
                await asyncio.shield(self._writing)
            woken.clear()
            try:
                async with asyncio.timeout(REFRESH_INTERVAL):
                    await woken.wait()
            except TimeoutError:
                quiet += REFRESH_INTERVAL
            poll(self.press)

    async def _end(self, live: Live) -> None:
        """Leave the last table, without what only the keys are for."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait((self._writing,), timeout=SHUTDOWN_TIMEOUT)
            if not self._writing.done():  # held still
                return
        self.view.paused, self.view.chosen, self.view.keys = False, None, ""
        with contextlib.suppress(OSError):  # it may be gone
            self._write(live, self._frame(), self.log_buffer.take())
            live.stop()

    def _has_changes(self) -> bool:
        return self.flows.changed or bool(self.log_buffer)

    def _frame(self) -> Frame:
        size = self.console.size
        return self.view.frame(size.width, size.height - 1)

    def _write(self, live: Live, frame: Frame, lines: list[str]) -> None:
        with self.console:  # at once
            self._print(lines)
            live.update(frame, refresh=True)

    def _print(self, lines: list[str]) -> None:
        if lines:
            self.console.print(Text("\n".join(map(escaped, lines))), soft_wrap=True)

    def press(self, key: str) -> None:
        """A key was pressed."""
        view = self.view
        match key:
            case "up" | "down" | "page up" | "page down":
                view.move((-1 if key.endswith("up") else 1) * (10 if key.startswith("page") else 1))
            case "escape":
                view.chosen = None
            case "p" | " ":
                view.paused = not view.paused
            case "c":
                self.flows.clear()
            case "q":
                signal.raise_signal(signal.SIGINT)
            case _:
                return
        self.flows.changed = True
        if self._woken is not None:
            self._woken.set()
