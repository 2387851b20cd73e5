"""A stream of the engine, and the events that the engine reports."""

from __future__ import annotations

from typing import Protocol

from llama.http._h2.wire.fields import RequestHead, ResponseHead
from llama.http._h2.wire.priority import URGENCY
from llama.http._h2.wire.states import IDLE
from llama.http._messages.headers import Headers


class StreamEvents(Protocol):
    """The events of one stream."""

    def response(self, head: ResponseHead, ended: bool, /) -> None:
        """The head of the final response arrived."""
        ...

    def interim(self, head: ResponseHead, /) -> None:
        """An informational response (1xx) arrived."""
        ...

    def data(self, data: bytes, ended: bool, /) -> None:
        """Bytes of the body arrived; call `consumed` once they are read to return their credit."""
        ...

    def trailers(self, headers: Headers, /) -> None:
        """The body ended with trailers."""
        ...

    def reset(self, code: int, by_peer: bool, /) -> None:
        """The stream was reset, by the peer or because of its protocol error."""
        ...

    def window(self) -> None:
        """The stream's send window has grown."""
        ...


class Events(Protocol):
    """The events of a connection."""

    def request(self, stream: Stream, head: RequestHead, ended: bool, /) -> None:
        """A request arrived; the receiver sets `stream.events`."""
        ...

    def refused(self, stream: Stream, error: Exception, ended: bool, /) -> None:
        """A request arrived whose head exceeds a limit; respond with the error's status."""
        ...

    def settings_changed(self) -> None:
        """The peer's SETTINGS arrived: send windows and limits may have changed."""
        ...

    def window(self) -> None:
        """The connection's send window has grown."""
        ...

    def goaway(self, last: int, code: int, text: bytes, /) -> None:
        """GOAWAY arrived: the peer accepts no more streams. A client's streams above `last` were reset before."""
        ...

    def pong(self, payload: bytes, /) -> None:
        """The peer answered a PING."""
        ...


class NullStreamEvents:
    """Ignores all events."""

    def response(self, head: ResponseHead, ended: bool, /) -> None: ...

    def interim(self, head: ResponseHead, /) -> None: ...

    def data(self, data: bytes, ended: bool, /) -> None: ...

    def trailers(self, headers: Headers, /) -> None: ...

    def reset(self, code: int, by_peer: bool, /) -> None: ...

    def window(self) -> None: ...


NULL_EVENTS = NullStreamEvents()
UNKNOWN = -1
"""The length of a body without Content-Length."""


class Stream:
    """One stream of a connection."""

    __slots__ = (
        "events", "expected", "heard", "id", "incremental", "is_bodiless", "send_window", "size", "state",
        "unreturned", "urgency", "window",
    )  # fmt: skip

    def __init__(self, id: int, send_window: int, window: int) -> None:
        self.id = id
        self.state = IDLE
        self.events: StreamEvents = NULL_EVENTS
        self.send_window = send_window
        """Flow-control window for sending, in bytes."""
        self.window = self.size = window
        """Flow-control window for receiving, in bytes; `size` is the value to which credit restores it."""
        self.unreturned = 0
        """Consumed bytes whose credit was not yet returned to the peer."""
        self.expected = UNKNOWN
        """Bytes of the body that remain according to Content-Length."""
        self.heard = False
        """Whether the final head has arrived."""
        self.is_bodiless = False
        """Whether the response has no body regardless of its Content-Length, as the request was HEAD."""
        self.urgency = URGENCY
        self.incremental = False

    def __repr__(self) -> str:
        return f"stream {self.id}"
