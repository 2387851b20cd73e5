"""Lets a peer read the last bytes of a connection, such as an alert, before the connection closes."""

import asyncio
import contextlib

from llama._core.errors import LlamaError
from llama._core.stream import Stream

DRAINING = 1.0


async def drain(stream: Stream) -> None:
    """Half-close the stream and discard incoming data until the peer ends too, for at most a second.

    A socket that is closed while its peer sends answers with a reset, and the peer may then lose the alert.
    """
    with contextlib.suppress(OSError, LlamaError, TimeoutError):
        async with asyncio.timeout(DRAINING):
            await stream.write_eof()
            while await stream.read(16384):
                pass
