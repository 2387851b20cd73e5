"""A relay for bytes that are not HTTP, with a hook that sees and changes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeAlias

from llama._core.hook_errors import ESCAPING_ERRORS, contain_error
from llama._core.stack import display_name
from llama._core.stream import DEFAULT_READ_SIZE, Stream
from llama._core.target import Bridge
from llama.tcp._io.cancel_on_disconnect import cancel_on_disconnect_any_stream


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes in transit, as they were read."""

    data: bytes
    from_client: bool
    bridge: Bridge


ChunkHook: TypeAlias = Callable[[Chunk], bytes | Awaitable[bytes]]
"""A function that returns the bytes to forward for a chunk; empty forwards nothing."""


async def relay_chunks(bridge: Bridge, hook: ChunkHook) -> None:
    """Relay a bridge through a hook; each direction is half-closed on its own."""
    client, upstream = bridge.client, await bridge.upstream()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(upstream, client, bridge, hook, from_client=False))
            await _copy(client, upstream, bridge, hook, from_client=True)
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None


async def _through(hook: ChunkHook, chunk: Chunk, src: Stream) -> bytes:
    """Run a hook on a chunk; it is cancelled if the sender disconnects. Raises TypeError for a result not of bytes."""
    try:
        made = hook(chunk)
        if isawaitable(made):
            made = await cancel_on_disconnect_any_stream(
                src, made, "a hook had ended", ahead=DEFAULT_READ_SIZE, grace=None
            )
    except ESCAPING_ERRORS as error:
        if (failure := contain_error(error, display_name(hook))) is None:
            raise
        raise failure  # noqa: B904  # its cause is set
    if not isinstance(made, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
        raise TypeError(f"the chunk hook {display_name(hook)} returned {made!r}, expected bytes")
    return made


async def _copy(src: Stream, dst: Stream, bridge: Bridge, hook: ChunkHook, *, from_client: bool) -> None:
    while data := await src.read():
        changed = await _through(hook, Chunk(data, from_client, bridge), src)
        if changed:
            await dst.write(changed)
    await dst.write_eof()
