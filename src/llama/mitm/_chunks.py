"""Bytes that are no HTTP: relayed, with a hook that sees and changes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeAlias

from llama._stream import CHUNK, Stream
from llama._target import Bridge
from llama.tcp._leaving import unless_left


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes on their way, as they came."""

    data: bytes
    from_client: bool
    bridge: Bridge


ChunkHook: TypeAlias = Callable[[Chunk], bytes | Awaitable[bytes]]
"""What goes on in the place of a chunk: other bytes, the same, or none."""


async def relay_chunks(bridge: Bridge, hook: ChunkHook) -> None:
    """Relay a bridge through a hook; each end's end is passed on by itself."""
    client, upstream = bridge.client, await bridge.upstream()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(upstream, client, bridge, hook, from_client=False))
            await _copy(client, upstream, bridge, hook, from_client=True)
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None


async def _through(src: Stream, made: Awaitable[bytes]) -> bytes:
    """Await a hook, as long as the side whose bytes it has does not break off; an end may be half of one."""
    return await unless_left(src, made, "a hook had ended", ahead=CHUNK, grace=None)


async def _copy(src: Stream, dst: Stream, bridge: Bridge, hook: ChunkHook, *, from_client: bool) -> None:
    while data := await src.read():
        made = hook(Chunk(data, from_client, bridge))
        changed = await _through(src, made) if isawaitable(made) else made
        if not isinstance(changed, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
            raise TypeError(f"the chunk hook {hook!r} returned {changed!r}, not bytes")
        if changed:
            await dst.write(changed)
    await dst.write_eof()
