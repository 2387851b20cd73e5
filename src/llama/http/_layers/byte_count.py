"""A byte counter for bodies."""

from __future__ import annotations


class ByteCount:
    """A transform that counts the bytes of a body without changing it."""

    __slots__ = ("bytes", "ended")

    def __init__(self, size: int = 0, *, ended: bool = False) -> None:
        self.bytes = size
        self.ended = ended

    def update(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        self.ended = True
        return b""
