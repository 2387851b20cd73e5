"""Reads messages from a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from llama._core.errors import TruncatedError
from llama._core.stream import Stream

M = TypeVar("M")
_READ_SIZE = 1024


async def read_message(
    stream: Stream, parse: Callable[[bytes], tuple[M, int] | None], what: str, data: bytes = b""
) -> M:
    """Read one message, which may begin with `data`; later bytes are pushed back into the stream.

    Raises TruncatedError if the stream ends within the message, ProtocolError if it is malformed.
    """
    while True:
        found = parse(data) if data else None
        if found is not None:
            message, used = found
            if used < len(data):
                stream.unread(data[used:])
            return message
        more = await stream.read(_READ_SIZE)
        if not more:
            raise TruncatedError(f"the peer left before its {what} was whole")
        data += more
