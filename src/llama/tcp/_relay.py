"""The relay: bytes between a client and its target, both ways, untouched."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from llama._errors import LlamaError
from llama._stack import factory
from llama._stream import ReadyStream, Stream
from llama._target import Bridge, Relay
from llama.tcp._idle_relays import IdleRelays
from llama.tcp._pump import Pump, PumpingStream, WriteFailed
from llama.tcp._socket_pump import SocketPump
from llama.tcp._stream import SocketStream


class Transferred(NamedTuple):
    """The bytes that a relay carried: `sent` from the client to its target, `received` the other way."""

    sent: int
    received: int


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TcpRelay:
    """Copies bytes both ways; each end's end is passed on by itself."""

    idle_timeout: float | None
    watch: IdleRelays | None

    __takes__: ClassVar[type] = Bridge

    def __repr__(self) -> str:
        return (
            "tcp.relay()" if self.idle_timeout is None else f"tcp.relay(idle_timeout={self.idle_timeout:g})"
        )

    async def __call__(self, bridge: Bridge, /) -> None:
        client, target = bridge.client, await bridge.upstream()
        if isinstance(client, ReadyStream) and isinstance(target, ReadyStream):
            await _Relaying(client, target, bridge, self.watch).run()
        else:
            await _Copying(client, target, bridge, self.idle_timeout).run()


@factory("tcp.relay", "relay")
def relay(*, idle_timeout: float | None = None) -> Relay:
    """Copy bytes between a bridge's two ends until both have ended.

    Half-closes pass through, a reset resets the other side, `Transferred` is left in the bridge's extensions.
    `idle_timeout` in seconds ends a bridge on which nothing moves either way, with TimeoutError. On Linux
    bytes between plain sockets go by splice once a direction proves to be bulk.
    """
    return TcpRelay(idle_timeout, None if idle_timeout is None else IdleRelays(idle_timeout))


def _pump(src: ReadyStream, dst: ReadyStream, ended: Callable[[Pump, Exception | None], None]) -> Pump:
    if isinstance(src, SocketStream) and isinstance(dst, SocketStream):
        return SocketPump(src, dst, ended)
    for each in (src, dst):
        if isinstance(each, PumpingStream) and (pump := each.make_pump(src, dst, ended)) is not None:
            return pump
    return Pump(src, dst, ended)


class _Relaying:
    """Two pumps over streams that have readiness callbacks."""

    __slots__ = ("_bridge", "_client", "_done", "_down", "_error", "_up", "_watch")

    def __init__(
        self, client: ReadyStream, target: ReadyStream, bridge: Bridge, watch: IdleRelays | None
    ) -> None:
        self._bridge = bridge
        self._client = client
        self._up = _pump(client, target, self._ended)
        self._down = _pump(target, client, self._ended)
        self._watch = watch
        self._error: Exception | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        self._up.start()
        self._down.start()
        self._client.on_broken(self._broke)
        if self._watch is not None:
            self._watch.add(self)
        try:
            await self._done
        finally:
            self._client.on_broken(None)
            if not self._up.over:
                self._up.stop()
            if not self._down.over:
                self._down.stop()
            if self._watch is not None:
                self._watch.discard(self)
            self._bridge.extensions.set(Transferred(self._up.count, self._down.count))

    def _ended(self, pump: Pump, error: Exception | None) -> None:
        other = self._down if pump is self._up else self._up
        if isinstance(error, WriteFailed):
            # The far end takes nothing more, but what it said before may still be on its way to the client.
            self._error = error.cause
            if not other.over:
                # A reset is told once: what the other direction would find is an end.
                other.lost = None if isinstance(error.cause, BrokenPipeError) else error.cause
                return
        elif error is not None:
            self._finish(error)
            return
        if other.over:
            self._finish(self._error)
        else:
            other.last = True  # both ends are closed after that one, so it need not be passed on

    def _broke(self) -> None:
        """The client is gone, and what it said is held up: a target that takes nothing would never learn it."""
        self._finish(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _finish(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)

    def moved(self) -> int:
        return self._up.count + self._down.count

    def idle(self, seconds: float) -> None:
        self._finish(TimeoutError(f"nothing moved for {seconds:g} s"))


class _Copying:
    """Two coroutines, for streams of any kind."""

    __slots__ = ("_bridge", "_client", "_down", "_idle", "_refused", "_target", "_up")

    def __init__(self, client: Stream, target: Stream, bridge: Bridge, idle: float | None) -> None:
        self._client = client
        self._target = target
        self._bridge = bridge
        self._idle = idle
        self._up = self._down = 0
        self._refused: dict[Stream, Exception] = {}
        """The streams that take nothing more, and why."""

    async def run(self) -> None:
        try:
            async with asyncio.timeout(None) as clock, asyncio.TaskGroup() as group:
                self._moved(clock)
                group.create_task(self._copy(self._target, self._client, clock, up=False))
                await self._copy(self._client, self._target, clock, up=True)
        except TimeoutError:
            raise TimeoutError(f"nothing moved for {self._idle:g} s") from None
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._bridge.extensions.set(Transferred(self._up, self._down))
        for error in self._refused.values():
            raise error

    async def _copy(self, src: Stream, dst: Stream, clock: asyncio.Timeout, *, up: bool) -> None:
        while data := await src.read():
            try:
                await dst.write(data)
            except (OSError, LlamaError) as error:  # what it said before may still be on its way
                self._refused[dst] = error
                return
            if up:
                self._up += len(data)
            else:
                self._down += len(data)
            self._moved(clock)
        # A reset is told once: where a write has found it, the end that is read is none.
        if isinstance(self._refused.get(src), BrokenPipeError | None):
            await dst.write_eof()

    def _moved(self, clock: asyncio.Timeout) -> None:
        if self._idle is not None:
            clock.reschedule(asyncio.get_running_loop().time() + self._idle)
