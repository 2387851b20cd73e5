"""The connection that a request was sent on."""

from __future__ import annotations

from llama._core.stream import Stream


class ConnectionUsed:
    """An entry for a request's extensions that receives the stream the client sent it on, the last one if retried."""

    __slots__ = ("stream",)

    def __init__(self) -> None:
        self.stream: Stream | None = None
        """The stream; None before the request is sent, and for HTTP/3, which has no stream for a connection."""
