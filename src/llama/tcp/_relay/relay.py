"""The relay: it copies bytes between a client and its target, in both directions, unchanged.

Situations to handle: either side ends first (half-close), resets, stops reading, or stays silent, and a write can
fail while bytes from the same side are still unread. Failures to rule out: a reset that the other side sees
as an orderly end, which would make truncated data look complete; lost final bytes, such as the error response
of a server that closes early; unbounded buffering; or a relay that outlives both its connections.

- Each direction is a pump (`llama.tcp._relay.pump`, `_socket_pump`), driven by readiness callbacks. A relay needs one
  future instead of two tasks and holds no buffer while idle; a pump stops reading while the destination does
  not accept bytes, so that backpressure reaches the sender through TCP's own window. The first version, two
  coroutines, remains for streams without readiness callbacks (`_CoroutineRelay`).
- A FIN is passed on as a FIN by shutting down the write side, and the other direction continues. After the
  second end both connections are closed anyway, so it is not passed on separately (`skip_eof`).
- A read error ends both directions: the bridge resets the other side.
- A failed write ends only its own direction. The destination accepts nothing more, but the bytes that it sent
  before may still be in the receive queue, so the other direction runs to its end and the error is raised
  then. The kernel reports a reset once; a read after a failed write returns an end. `source_error` marks that end as
  false, except after EPIPE, where the peer has closed in order.
- While backpressure stops the reads from a client, only `on_broken` reports its reset; without it, a target
  that accepts nothing would keep the relay alive after its client has gone.
- `IdleRelays` finds idle relays with one timer for all relays of a timeout, instead of one for each.
- Every end sets `RelayStats` in the bridge's extensions, also after an error or a cancellation.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from llama._core.errors import LlamaError
from llama._core.stack import layer_factory
from llama._core.stream import NonblockingStream, Stream
from llama._core.target import Bridge, Relay
from llama.tcp._io.stream import SocketStream
from llama.tcp._relay.idle import IdleRelays
from llama.tcp._relay.pump import Pump, PumpingStream, WriteFailed
from llama.tcp._relay.splice import SocketPump


class RelayStats(NamedTuple):
    """The bytes that a relay carried: `sent` from the client to its target, `received` the other way."""

    sent: int
    received: int


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TcpRelay:
    """Copies bytes in both directions, and passes each half-close on separately."""

    idle_timeout: float | None
    watch: IdleRelays | None

    __input_type__: ClassVar[type] = Bridge

    def __repr__(self) -> str:
        return (
            "tcp.relay()" if self.idle_timeout is None else f"tcp.relay(idle_timeout={self.idle_timeout:g})"
        )

    async def __call__(self, bridge: Bridge, /) -> None:
        client, target = bridge.client, await bridge.upstream()
        if isinstance(client, NonblockingStream) and isinstance(target, NonblockingStream):
            await _PumpRelay(client, target, bridge, self.watch).run()
        else:
            await _CoroutineRelay(client, target, bridge, self.idle_timeout).run()


@layer_factory("tcp.relay", "relay")
def relay(*, idle_timeout: float | None = None) -> Relay:
    """Copy bytes between the two streams of a bridge until both have ended.

    A half-close is passed on, a reset resets the other side, and `RelayStats` is set in the bridge's extensions.
    `idle_timeout` ends a bridge without traffic in either direction after that many seconds, with TimeoutError.
    On Linux bytes between plain sockets are spliced once a direction has proved to be a bulk transfer.
    """
    return TcpRelay(idle_timeout, None if idle_timeout is None else IdleRelays(idle_timeout))


def _pump(
    src: NonblockingStream, dst: NonblockingStream, ended: Callable[[Pump, Exception | None], None]
) -> Pump:
    if isinstance(src, SocketStream) and isinstance(dst, SocketStream):
        return SocketPump(src, dst, ended)
    for each in (src, dst):
        if isinstance(each, PumpingStream) and (pump := each.make_pump(src, dst, ended)) is not None:
            return pump
    return Pump(src, dst, ended)


class _PumpRelay:
    """Two pumps over streams that have readiness callbacks."""

    __slots__ = ("_bridge", "_client", "_done", "_down", "_error", "_up", "_watch")

    def __init__(
        self, client: NonblockingStream, target: NonblockingStream, bridge: Bridge, watch: IdleRelays | None
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
            if not self._up.done:
                self._up.stop()
            if not self._down.done:
                self._down.stop()
            if self._watch is not None:
                self._watch.discard(self)
            self._bridge.extensions.set(RelayStats(self._up.count, self._down.count))

    def _ended(self, pump: Pump, error: Exception | None) -> None:
        other = self._down if pump is self._up else self._up
        if isinstance(error, WriteFailed):
            # The destination accepts nothing more, but bytes that it sent before may still be unread.
            self._error = error.cause
            if not other.done:
                # The kernel reports a reset once: a read in the other direction would return an end.
                other.source_error = None if isinstance(error.cause, BrokenPipeError) else error.cause
                return
        elif error is not None:
            self._finish(error)
            return
        if other.done:
            self._finish(self._error)
        else:
            other.skip_eof = True  # both streams are closed after it, so its end need not be passed on

    def _broke(self) -> None:
        """End the relay: the client has reset, and its unread bytes wait for a target that does not read."""
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
        self._finish(TimeoutError(f"no traffic for {seconds:g} s"))


class _CoroutineRelay:
    """A relay of two coroutines, for streams of any type."""

    __slots__ = ("_bridge", "_client", "_down", "_idle", "_refused", "_target", "_up")

    def __init__(self, client: Stream, target: Stream, bridge: Bridge, idle: float | None) -> None:
        self._client = client
        self._target = target
        self._bridge = bridge
        self._idle = idle
        self._up = self._down = 0
        self._refused: dict[Stream, Exception] = {}
        """The streams to which a write failed, with the error."""

    async def run(self) -> None:
        try:
            async with asyncio.timeout(None) as clock, asyncio.TaskGroup() as group:
                self._moved(clock)
                group.create_task(self._copy(self._target, self._client, clock, up=False))
                await self._copy(self._client, self._target, clock, up=True)
        except TimeoutError:
            raise TimeoutError(f"no traffic for {self._idle:g} s") from None
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._bridge.extensions.set(RelayStats(self._up, self._down))
        for error in self._refused.values():
            raise error

    async def _copy(self, src: Stream, dst: Stream, clock: asyncio.Timeout, *, up: bool) -> None:
        while data := await src.read():
            try:
                await dst.write(data)
            except (OSError, LlamaError) as error:  # bytes that `dst` sent before may still be unread
                self._refused[dst] = error
                return
            if up:
                self._up += len(data)
            else:
                self._down += len(data)
            self._moved(clock)
        # The kernel reports a reset once: after a write has raised it, an end on read is not an orderly one.
        if isinstance(self._refused.get(src), BrokenPipeError | None):
            await dst.write_eof()

    def _moved(self, clock: asyncio.Timeout) -> None:
        if self._idle is not None:
            clock.reschedule(asyncio.get_running_loop().time() + self._idle)
