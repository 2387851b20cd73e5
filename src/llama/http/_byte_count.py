"""How much of a body has passed."""

from __future__ import annotations


class ByteCount:
    """Lets a body pass as it is, and counts its bytes."""

    __slots__ = ("bytes", "ended")

    def __init__(self, size: int = 0, *, ended: bool = False) -> None:
        self.bytes = size
        self.ended = ended

    def feed(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data

    def more(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        self.ended = True
        return b""
