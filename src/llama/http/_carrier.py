"""Which connection carried a request, for who asks."""

from __future__ import annotations

from llama._stream import Stream


class Carrier:
    """Put into a request's extensions, it is told the stream that the client sent it by; the last one, if several."""

    __slots__ = ("stream",)

    def __init__(self) -> None:
        self.stream: Stream | None = None
        """None before, and where that is no stream of its own, as with HTTP/3."""
