"""Adapts the WebSocket messages of an ASGI server to a stream of frames, as its client would send and read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from llama._asgi.types import Event, Receive, Send
from llama._core.errors import TooLargeError
from llama._core.shutdown import detached_task
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, Stream, busy_error, closed_error

UNENCODABLE_CLOSE_CODES = frozenset({1005, 1006, 1015})  # RFC 6455 section 7.4.1
BROKEN = 1011
LIMIT = 1 << 25  # for a client message and pongs


class MessageStream(Stream):
    """Encodes the server's messages as a client's frames, and decodes written frames to messages for the server."""

    __slots__ = (
        "_broken",
        "_buffer",
        "_closed",
        "_ended",
        "_on_end",
        "_parts",
        "_protocol",
        "_reading",
        "_receive",
        "_receiving",
        "_send",
        "_text",
        "_waiter",
        "_writing",
        "is_close_sent",
    )

    def __init__(self, receive: Receive, send: Send, max_message: int, on_end: Callable[[], object]) -> None:
        super().__init__()
        self._on_end = on_end
        self._receive = receive
        self._send = send
        self._protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=max_message)
        self._buffer = b""
        self._parts: list[bytes] = []
        self._text = False
        self._receiving: asyncio.Task[Event] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._reading = self._writing = self._broken = self._ended = self._closed = False
        self.is_close_sent = False
        """Whether this side has sent a close to the server, or the server has disconnected."""

    def __repr__(self) -> str:
        return "the WebSocket of an ASGI server"

    # from the client: messages to frames

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._closed:
            raise closed_error(self)
        if self._reading:
            raise busy_error(self, "read")
        self._reading = True
        try:
            while not self._fill() and not self._ended:
                await self._changed()
                if self._closed:
                    raise closed_error(self)
        finally:
            self._reading = False
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return data

    def _fill(self) -> bool:
        self._buffer += b"".join(self._protocol.data_to_send())
        return bool(self._buffer)

    async def _changed(self) -> None:
        """Wait for a message, or for a frame that the protocol itself requires, such as a pong."""
        self._waiter = asyncio.get_running_loop().create_future()
        self.listening().add_done_callback(self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._receiving is not None:
                self._receiving.remove_done_callback(self._wake)
        if self._receiving is not None and self._receiving.done():
            task, self._receiving = self._receiving, None
            if not task.cancelled():
                self._take(task.result())

    def listening(self) -> asyncio.Task[Event]:
        """Return the task that waits for the server's next message; it survives a cancelled read."""
        if self._receiving is None:
            self._receiving = detached_task(self._next())
        return self._receiving

    async def _next(self) -> Event:
        return await self._receive()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, message: Event) -> None:
        if message["type"] == "websocket.disconnect":
            self.is_close_sent = True
            self._end()
            if self._protocol.state is State.OPEN:
                self._put_close(message.get("code") or 1005, message.get("reason") or "")
        elif self._protocol.state is State.OPEN:
            if (text := message.get("text")) is not None:
                self._protocol.send_text(text.encode())
            else:
                self._protocol.send_binary(bytes(message.get("bytes") or b""))

    def _put_close(self, code: int, reason: str) -> None:
        if code == 1005:  # closed without a code
            self._protocol.send_close()
        elif code in UNENCODABLE_CLOSE_CODES:  # aborted: report to the upstream as 1001, going away
            self._protocol.send_close(1001)
        else:
            self._protocol.send_close(code, reason)

    # from the upstream: frames to messages

    async def write(self, data: Buffer, /) -> None:
        if self._closed or self._broken:
            raise closed_error(self)
        if self._writing:
            raise busy_error(self, "written")
        self._writing = self._broken = True
        try:
            self._protocol.receive_data(bytes(data))
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    await self._pass_on(event)
            if (error := self._protocol.close_sent) is not None and self._protocol.parser_exc is not None:
                await self.send_close(int(error.code), error.reason)
            if self._fill() and len(self._buffer) > LIMIT:
                raise TooLargeError(
                    f"{self!r}: {len(self._buffer)} bytes wait for an upstream that reads none of them"
                )
            self._broken = False
        finally:
            self._writing = False
            self._wake()

    async def _pass_on(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            code = int(received.code) if received is not None else 1005
            reason = received.reason if received is not None else ""
            await self.send_close(1000 if code in UNENCODABLE_CLOSE_CODES else code, reason)
            return
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
            self._parts = []
        elif frame.opcode is not Opcode.CONT:
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            whole, self._parts = b"".join(self._parts), []
            await self._send_message(whole)

    async def _send_message(self, data: bytes) -> None:
        if self.is_close_sent:
            return
        if not self._text:
            await self._send({"type": "websocket.send", "bytes": data})
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._protocol.fail(1007, "text that is not UTF-8")
            await self.send_close(BROKEN, "")
            return
        await self._send({"type": "websocket.send", "text": text})

    async def send_close(self, code: int, reason: str = "") -> None:
        """Send the server a close, once; nothing more is read from its client."""
        self._end()
        if not self.is_close_sent:
            self.is_close_sent = True
            if self._receiving is not None:  # some servers send no close while a receive is pending
                self._receiving.cancel()
                await asyncio.wait([self._receiving])
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def write_eof(self) -> None:
        if self._closed:
            raise closed_error(self)
        self._broken = True
        await self.send_close(BROKEN)  # the stream ended without a close frame

    def unread(self, data: bytes, /) -> None:
        self._buffer = data + self._buffer

    async def aclose(self) -> None:
        if self._closed:
            return
        self.abort()
        try:
            await self.send_close(BROKEN)
        except OSError:
            return  # the client has already disconnected

    def abort(self) -> None:
        self._closed = True
        if self._receiving is not None:
            self._receiving.cancel()
        self._wake()

    async def wait_done(self) -> None:
        """Wait until its tasks have ended."""
        self.abort()
        if self._receiving is not None:
            await asyncio.wait([self._receiving])
