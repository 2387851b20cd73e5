"""The stream of an upgraded response: the upstream's, or one to a handler in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llama._core.errors import LlamaError
from llama._core.loggers import logger
from llama._core.shutdown import detached_task
from llama._core.stream import ConnectionHandler, Stream
from llama.http._messages.upgrade import UpgradedConnection
from llama.tcp._io.open_stream import open_stream
from llama.ws._framed_endpoint import CLOSE_TIMEOUT

log = logger("server")


@asynccontextmanager
async def upgrade_stream(upgrade: ConnectionHandler) -> AsyncGenerator[Stream]:
    """Open the stream of an upgraded response. It is closed after the block, and aborted if the block raises."""
    if isinstance(upgrade, UpgradedConnection):
        try:
            yield upgrade.stream
            await upgrade.stream.aclose()
        finally:
            upgrade.abort()
        return
    ours, theirs = _pair()
    task = detached_task(_serve(upgrade, theirs))
    try:
        yield ours
        await ours.aclose()
        await asyncio.wait((task,), timeout=CLOSE_TIMEOUT)
    finally:
        ours.abort()
        task.cancel()
        await asyncio.wait((task,))


def _pair() -> tuple[Stream, Stream]:
    one, two = socket.socketpair()
    one.setblocking(False)
    two.setblocking(False)
    return open_stream(one, "upgrade"), open_stream(two, "upgrade")


async def _serve(handler: ConnectionHandler, stream: Stream) -> None:
    """Run the handler as a listener does."""
    try:
        await handler(stream)
        await stream.aclose()
    except (LlamaError, OSError) as error:
        log.warning("%s", error)
    except Exception:
        log.exception("%r failed", handler)
    finally:
        stream.abort()
