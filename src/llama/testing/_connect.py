"""A connection to a handler, without a listener."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from llama._core.errors import LlamaError
from llama._core.resources import enter_resources
from llama._core.server import PeerAddress, should_close_gracefully
from llama._core.shutdown import Shutdown
from llama._core.stack import check_accepts
from llama._core.stream import ConnectionHandler, Stream
from llama.testing._memory import memory_pair

log = logging.getLogger("llama.testing")
CLIENT = PeerAddress("192.0.2.1", 50000)

Pair = Callable[[], tuple[Stream, Stream]]
"""Makes two connected streams, the client's first: `memory_pair`, `lockstep`, or a partial of one."""


@asynccontextmanager
async def connect(
    handler: ConnectionHandler, *, peer: PeerAddress | None = CLIENT, pair: Pair = memory_pair
) -> AsyncGenerator[Stream]:
    """Connect to a handler in memory: `async with testing.connect(stack(timeout(5), echo)) as stream:`.

    The handler runs as with a listener: the stack's resources are entered, the stream is closed after a normal
    return, a LlamaError or a timeout, and aborted after any other exception. Leaving the block closes the client and
    waits for the handler; it raises the handler's exception if that is a bug (not a LlamaError, TimeoutError or
    OSError). A block that raises cancels the handler. `peer` is the client's address in the extensions.
    """
    check_accepts(handler, Stream, "testing.connect()")
    client, server = pair()
    if peer is not None:
        server.extensions.set(peer)
    bugs: list[Exception] = []
    async with AsyncExitStack() as exits:
        await enter_resources(exits, handler)
        async with Shutdown() as shutdown:
            shutdown.spawn(serve_stream(handler, server, bugs), name="handler")
            try:
                yield client
                await client.aclose()
                await shutdown.drain()
            except Exception as error:
                for bug in bugs:
                    error.add_note(f"the handler had raised {bug!r}")
                raise
            finally:
                client.abort()
    if bugs:
        raise bugs[0]


async def serve_stream(handler: ConnectionHandler, stream: Stream, bugs: list[Exception]) -> None:
    """Serve one stream as a listener does; keep an exception that is a bug."""
    try:
        await handler(stream)
        await stream.aclose()
    except (LlamaError, TimeoutError, OSError) as error:
        log.warning("%s", str(error) or type(error).__name__)
        if should_close_gracefully(error):
            await stream.aclose()
    except Exception as error:
        log.exception("the handler failed")
        bugs.append(error)
    finally:
        stream.abort()
