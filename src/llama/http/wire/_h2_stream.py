"""One stream as the engine knows it, and who is told of what happens on it."""

from __future__ import annotations

from typing import Protocol

from llama.http._headers import Headers
from llama.http.wire._h2_fields import RequestHead, ResponseHead
from llama.http.wire._h2_priority import URGENCY
from llama.http.wire._h2_states import IDLE


class StreamEvents(Protocol):
    """What happens on one stream."""

    def response(self, head: ResponseHead, ended: bool, /) -> None:
        """The final response's head came."""
        ...

    def interim(self, head: ResponseHead, /) -> None:
        """An informational response (1xx) came."""
        ...

    def data(self, data: bytes, ended: bool, /) -> None:
        """Bytes of the body came; `consumed` gives the peer room for others."""
        ...

    def trailers(self, headers: Headers, /) -> None:
        """The body has ended with these fields."""
        ...

    def reset(self, code: int, by_peer: bool, /) -> None:
        """The stream broke off: the peer said so, or broke the rules."""
        ...

    def window(self) -> None:
        """The peer has given room for more."""
        ...


class Events(Protocol):
    """What happens on a connection."""

    def request(self, stream: Stream, head: RequestHead, ended: bool, /) -> None:
        """A request came; who takes it sets `stream.events`."""
        ...

    def refused(self, stream: Stream, error: Exception, ended: bool, /) -> None:
        """A request came whose head is over a limit: the error's status tells which answer it gets."""
        ...

    def settings_changed(self) -> None:
        """The peer has said what it takes: windows and bounds may have changed."""
        ...

    def window(self) -> None:
        """The peer has given the connection room for more."""
        ...

    def goaway(self, last: int, code: int, text: bytes, /) -> None:
        """The peer takes no more streams; those of ours after `last` were reset."""
        ...

    def pong(self, payload: bytes, /) -> None:
        """The peer has answered a PING."""
        ...


class Nobody:
    """Does not care."""

    def response(self, head: ResponseHead, ended: bool, /) -> None: ...

    def interim(self, head: ResponseHead, /) -> None: ...

    def data(self, data: bytes, ended: bool, /) -> None: ...

    def trailers(self, headers: Headers, /) -> None: ...

    def reset(self, code: int, by_peer: bool, /) -> None: ...

    def window(self) -> None: ...


NOBODY = Nobody()
UNKNOWN = -1
"""The length of a body that no Content-Length tells."""


class Stream:
    """One stream of a connection."""

    __slots__ = (
        "events", "expected", "heard", "id", "incremental", "is_bodiless", "send_window", "size", "state",
        "unreturned", "urgency", "window",
    )  # fmt: skip

    def __init__(self, id: int, send_window: int, window: int) -> None:
        self.id = id
        self.state = IDLE
        self.events: StreamEvents = NOBODY
        self.send_window = send_window
        """Bytes that may be sent."""
        self.window = self.size = window
        """Bytes that may come; what it is filled up to."""
        self.unreturned = 0
        """Bytes that were consumed, of which the peer was not told yet."""
        self.expected = UNKNOWN
        """Bytes of the body that are still to come, as Content-Length says."""
        self.heard = False
        """Whether the final head came."""
        self.is_bodiless = False
        """Whether the response has no body, whatever its Content-Length says: that to HEAD."""
        self.urgency = URGENCY
        self.incremental = False

    def __repr__(self) -> str:
        return f"stream {self.id}"
