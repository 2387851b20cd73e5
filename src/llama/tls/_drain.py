"""Lets a peer read the last bytes of a connection, such as an alert, before the connection closes."""

import asyncio
import contextlib

from llama._errors import LlamaError
from llama._stream import Stream

DRAINING = 1.0


async def drain(stream: Stream) -> None:
    """End writing and discard what the peer still sends, until it ends too or a second has passed.

    A socket that closes while its peer sends answers with a reset, after which the peer may not read the alert.
    """
    with contextlib.suppress(OSError, LlamaError, TimeoutError):
        async with asyncio.timeout(DRAINING):
            await stream.write_eof()
            while await stream.read(16384):
                pass
