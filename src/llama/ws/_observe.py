"""The layer that watches WebSockets which an exchange passes on, and changes nothing of them.

The bytes of both sides pass as they come, at any size and with any extension; a copy of them is read on the side. So
memory stays bounded by what an observer keeps, and a side that breaks the protocol is answered by the other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeAlias

from llama._core.errors import ConfigError, ProtocolError
from llama._core.extensions import Extensions
from llama._core.loggers import logger
from llama._core.meter import Meter, Pacer
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, ConnectionHandler, Stream
from llama.http import Request, RequestHandler, Response
from llama.ws._handshake import agreed_takeover, asks_for_websocket
from llama.ws._settings import MAX_SIZE
from llama.ws._tap_wire import Tap
from llama.ws._wire import ABNORMAL, Close

log = logger("server")
_SLICE = 16384  # bytes that are read on the side before others have their turn


class Observation:
    """A WebSocket that is observed."""

    __slots__ = ("_hooks", "_taps", "close_code", "close_reason", "closed_by_client", "request")

    def __init__(self, request: Request, response: Response, hooks: Observers, max_size: int) -> None:
        self.request = request
        """The request that opened it."""
        self.close_code: int | None = None
        """The first close's code: 1005 if it gave none, 1006 if a side left without; None while it is open."""
        self.close_reason = ""
        self.closed_by_client: bool | None = None
        """Which side was the first to close or to leave; None while it is open, or where that is not known."""
        self._hooks = hooks
        client, server = _takeovers(response)
        self._taps = {True: Tap(max_size, client), False: Tap(max_size, server)}

    def __repr__(self) -> str:
        return f"<Observation {self.request.url}>"

    @property
    def extensions(self) -> Extensions:
        """Those of the request; observers may keep their own state here."""
        return self.request.extensions

    def limit(self, max_size: int) -> None:
        """From here on give the data of messages up to this size alone; with 0 of none."""
        for tap in self._taps.values():
            tap.limit = max_size

    def feed(self, data: memoryview, *, from_client: bool) -> None:
        """Bytes pass."""
        tap = self._taps[from_client]
        if tap.over:
            return
        try:
            for event in tap.feed(data):
                if isinstance(event, Close):
                    self.note_close(event.code, event.reason, from_client)
                else:
                    self._hooks.message(ObservedMessage(event.data, event.size, from_client, self))
        except Exception:
            tap.over = True
            log.exception("%r: an observer failed", self)

    def note_close(self, code: int, reason: str, by_client: bool | None) -> None:
        """It closes for this reason; the first one counts."""
        if self.close_code is None:
            self.close_code, self.close_reason, self.closed_by_client = code, reason, by_client

    def end(self) -> None:
        """Both sides have ended."""
        self.note_close(ABNORMAL, "", None)
        if self._hooks.closed is not None:
            try:
                self._hooks.closed(self)
            except Exception:
                log.exception("%r: an observer failed", self)


@dataclass(frozen=True, slots=True)
class ObservedMessage:
    """A message that has passed: text as `str`, binary as `bytes`."""

    data: str | bytes | None
    """None where it has more than `max_size` bytes or cannot be read, as with an extension that is not known."""
    size: int
    """Its bytes; as they passed, deflated or not, where `max_size` is 0."""
    from_client: bool
    observation: Observation


MessageObserver: TypeAlias = Callable[[ObservedMessage], object]
"""Is called with each message, in the order in which they pass from each side; a plain function that returns soon."""
CloseObserver: TypeAlias = Callable[[Observation], object]
"""Is called once a WebSocket is over; a plain function that returns soon."""


@dataclass(frozen=True, slots=True)
class Observers:
    """What watches."""

    message: MessageObserver
    closed: CloseObserver | None


def _takeovers(response: Response) -> tuple[bool | None, bool | None]:
    """Whether each side deflates with the context of earlier messages, None where it does not deflate."""
    try:
        return agreed_takeover(response.headers)
    except ProtocolError:  # an extension that is not known: no deflated frame can be read
        return None, None


class Tapped(Stream):
    """The client's stream, with an observation that sees every byte. No readiness callbacks: all goes through it."""

    __slots__ = ("_again", "_observation", "_stream")

    def __init__(self, stream: Stream, observation: Observation) -> None:
        super().__init__()
        self._stream = stream
        self._observation = observation
        self._again = 0  # bytes put back, which were seen already

    def __repr__(self) -> str:
        return repr(self._stream)

    @property
    def extensions(self) -> Extensions:
        return self._stream.extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._stream.extensions = value

    @property
    def pace(self) -> Pacer | None:
        return self._stream.pacer

    def attach(self, meter: Meter, /) -> None:
        self._stream.attach(meter)

    def detach(self, meter: Meter, /) -> None:
        self._stream.detach(meter)

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        data = await self._stream.read(min(limit, _SLICE))
        if not data:
            self._observation.note_close(ABNORMAL, "", by_client=True)
        seen = min(self._again, len(data))
        self._again -= seen
        self._observation.feed(memoryview(data)[seen:], from_client=True)
        return data

    async def write(self, data: Buffer, /) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _SLICE):
            if start:
                await asyncio.sleep(0)
            self._observation.feed(view[start : start + _SLICE], from_client=False)
        await self._stream.write(view)

    async def write_eof(self) -> None:
        self._observation.note_close(ABNORMAL, "", by_client=False)
        await self._stream.write_eof()

    def unread(self, data: bytes, /) -> None:
        self._again += len(data)
        self._stream.unread(data)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        self._stream.abort()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Observe:
    """Watches WebSockets."""

    inner: RequestHandler
    hooks: Observers
    max_size: int

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "ws.observe()"

    async def __call__(self, request: Request, /) -> Response:
        asks = asks_for_websocket(request)
        response = await self.inner(request)
        if asks and response.upgrade is not None and _is_websocket(response):
            observation = Observation(request, response, self.hooks, self.max_size)
            response.upgrade = partial(_carry, response.upgrade, observation)
        return response


def _is_websocket(response: Response) -> bool:
    named = response.headers.tokens("upgrade")
    return not named or "websocket" in named


async def _carry(upgrade: ConnectionHandler, observation: Observation, stream: Stream) -> None:
    try:
        await upgrade(Tapped(stream, observation))
    finally:
        observation.end()


@layer_factory("ws.observe")
def observe(
    on_message: MessageObserver, *, on_close: CloseObserver | None = None, max_size: int = MAX_SIZE
) -> Middleware[Request, Response]:
    """Watch the WebSockets that the exchange within passes on, such as a proxy, and change nothing of them.

    `on_message` is called with each `ObservedMessage` just before its last bytes go on, `on_close` with the
    `Observation` at the end; both are plain functions. Messages of any size pass in the pieces in which they come; of
    one with more than `max_size` bytes the size alone is given, so that no more than that is held for each side. With
    0 nothing is held. A function that raises is logged, and called no more for that side; the WebSocket goes on.

    A hook that changes, drops or answers messages is for `ws.inspect`.

        def note(message: ws.ObservedMessage) -> None:
            print("up" if message.from_client else "down", message.size)

        stack(http.server(), ws.observe(note), http.reverse_proxy("http://127.0.0.1:8000"))
    """
    if max_size < 0:
        raise ConfigError(f"ws.observe(max_size={max_size}): expected 0 or more bytes")
    hooks = Observers(on_message, on_close)

    def build(inner: RequestHandler) -> RequestHandler:
        return Observe(inner, hooks, max_size)

    return named_layer("ws.observe()", build, input_type=Request, inner_type=Request)
