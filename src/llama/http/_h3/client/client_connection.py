"""One HTTP/3 client connection, over packets of any packet connector."""

from __future__ import annotations

import asyncio
from collections import deque

from llama._core.errors import LlamaError, UnreachableError
from llama._core.packets import Packets
from llama._core.shutdown import Shutdown
from llama.http._h3.connection import Address, H3Transport, PausableQuicConnection
from llama.http._h3.stream import H3Stream
from llama.http._limits import Limits
from llama.http._messages.origin import Origin

QUEUE = 4096  # queued outgoing packets; further ones are dropped and QUIC resends them
BURST = 64  # packets received before other tasks get a turn
PEER = ("192.0.2.1", 443)  # placeholder address for the only peer of the packets


class H3ClientConnection:
    """A connection that owns its packets; two tasks send and receive them."""

    def __init__(
        self, packets: Packets, quic: PausableQuicConnection, origin: Origin, limits: Limits
    ) -> None:
        self.packets = packets
        self.origin = origin
        self.link = H3Transport(quic, self._queue_up, limits)
        self._queue: deque[bytes] = deque()
        self._more: asyncio.Future[None] | None = None
        self._taken: list[bytes] = []

    def start(self, tasks: Shutdown) -> None:
        """Start the handshake, and the two tasks in `tasks`."""
        tasks.spawn(self._receive())
        tasks.spawn(self._sending())
        self.link.quic.connect(PEER, self.link.loop.time())
        self.link.flush()

    @property
    def is_open(self) -> bool:
        """Whether it accepts more requests."""
        return not self.link.closed.done() and self.link.goaway is None

    @property
    def room(self) -> int:
        """The number of further requests that the server allows now (RFC 9000 section 4.6)."""
        quic = self.link.quic
        return (
            quic.max_concurrent_bidi_streams - quic.get_next_available_stream_id() // 4 if self.is_open else 0
        )

    def open(self) -> H3Stream:
        """Open a channel for a request."""
        link = self.link
        link.begin()
        number = link.quic.get_next_available_stream_id()
        channel = link.channels[number] = H3Stream(link, number)
        return channel

    async def _receive(self) -> None:
        link = self.link
        try:
            while not link.closed.done():
                packet = await self.packets.receive()
                self._taken.append(packet.data)
                if len(self._taken) == 1:
                    link.loop.call_soon(self._received)
                elif len(self._taken) >= BURST:
                    await asyncio.sleep(0)
        except (LlamaError, OSError) as error:
            self._received()
            link.fail(UnreachableError(f"cannot reach {self.origin}: {error}"))
        finally:
            self.close()

    def _received(self) -> None:
        """Process all packets received in this round of the loop together."""
        taken, self._taken = self._taken, []
        if taken and not self.link.closed.done():
            self.link.received(taken, PEER)

    def _queue_up(self, data: bytes, _: Address) -> None:
        if len(self._queue) < QUEUE:
            self._queue.append(data)
            if self._more is not None and not self._more.done():
                self._more.set_result(None)

    async def _sending(self) -> None:
        try:
            while True:
                while self._queue:
                    await self.packets.send(self._queue.popleft())
                if self.link.closed.done():
                    return
                self._more = self.link.loop.create_future()
                await asyncio.wait((self._more, self.link.closed), return_when=asyncio.FIRST_COMPLETED)
        except (LlamaError, OSError) as error:
            self.link.fail(UnreachableError(f"cannot reach {self.origin}: {error}"))
        finally:
            self.packets.abort()

    def close(self) -> None:
        """Close the connection and end its tasks. Idempotent."""
        self.link.close()
        self.link.abandon()
