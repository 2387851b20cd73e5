"""Relays messages between the client and the server of a WebSocket, with hooks in between.

Frames are decoded and encoded again rather than copied: a hook needs whole, inflated messages, and each side negotiates
its own compression. Each direction has one task, so messages keep their order, and a slow hook or a slow reader stops
only its own direction: a direction flushes its sink before it reads more. The conversation ends with the first task,
because a WebSocket has no half-close. After a failed hook, a protocol error or a hook's close, both ends get a close
frame and at most `CLOSING` seconds to answer it. While an async hook runs, the sender's stream is watched, so a hook
that never returns cannot outlive its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeVar

from llama._core.hook_errors import Stray, contained
from llama._core.loggers import logger
from llama._core.shutdown import Shutdown, own_task
from llama._core.stack import name_of
from llama.tcp._io.cancel_on_disconnect import ClientLeft, unless_left
from llama.ws._framed_endpoint import CLOSING, HIGH, End
from llama.ws._relayed_websocket import Conversation, Hook, Message, Watcher
from llama.ws._wire import GOING_AWAY, INTERNAL, LOST, Close, Event, Failure, Ping, Pong

log = logger("server")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a relay."""

    message: Hook
    opened: Watcher | None
    closed: Watcher | None


class HookFailed(Exception):
    """A hook raised; `__cause__` is its exception."""


class Broke(Exception):
    """A peer violated the protocol or exceeded a limit."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Direction:
    """Relays events from one end to the other until the source has ended or both have closed."""

    __slots__ = ("_conversation", "_from_client", "_hook", "sink", "source")

    def __init__(
        self, source: End, sink: End, conversation: Conversation, hook: Hook, *, from_client: bool
    ) -> None:
        self.source = source
        self.sink = sink
        self._conversation = conversation
        self._hook = hook
        self._from_client = from_client

    async def run(self) -> None:
        """Relay; raises HookFailed, Broke, and the errors of the streams."""
        source, sink = self.source, self.sink
        while data := await source.read():
            for events in source.feed(data):
                for event in events:
                    await self._pass(event)
                    if sink.waiting > HIGH:
                        await sink.flush()
                if sink.waiting:
                    await sink.flush()
            if source.frames.over and sink.frames.over:
                return
        self._conversation._note_close(LOST, "", self._from_client)

    async def _pass(self, event: Event) -> None:
        sink = self.sink
        if isinstance(event, str | bytes):
            await self._through(Message(event, self._from_client, self._conversation))
        elif isinstance(event, Ping):
            sink.put_ping(event.data)
        elif isinstance(event, Pong):
            sink.put_pong(event.data)
        elif isinstance(event, Close):
            self._conversation._note_close(event.code, event.reason, self._from_client)
            sink.put_close(event.code, event.reason)
        else:
            self.source.put_close(event.code, event.reason)
            raise Broke(event)

    async def _through(self, message: Message) -> None:
        """Call the hook and forward the message that it returns; raises ClientLeft if the sender disconnects."""
        hook = self._hook
        try:
            passed = hook(message)
            if isawaitable(passed):
                passed = await _unless_left(self.source, passed)
            if passed is None:
                return
            if not isinstance(passed, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
                raise TypeError(f"the hook {name_of(hook)} returned {passed!r}: expected a Message or None")
            self.sink.put_message(passed.data)
        except ClientLeft:
            raise
        except (Exception, *Stray) as error:
            if (failure := contained(error, name_of(hook))) is None:
                raise
            raise HookFailed from failure


async def _unless_left(end: End, work: Awaitable[T]) -> T:
    """Await a hook while its sender is connected, and up to `CLOSING` seconds after the sender's end of stream."""
    return await unless_left(end.stream, work, "a hook had ended", ahead=HIGH, grace=CLOSING)


async def relay(conversation: Conversation, client: End, server: End, hooks: Hooks) -> None:
    """Relay a conversation until it ends; raises the errors of the streams."""
    forget = _on_stop(conversation)
    try:
        try:
            await _watch(hooks.opened, conversation, client)
            await _carry(conversation, client, server, hooks.message)
        except HookFailed as failed:
            error = failed.__cause__
            log.error("%r: a hook failed", conversation, exc_info=error, extra={"error.type": _name(error)})
            conversation._note_close(INTERNAL, "")
            await _part(client, server, INTERNAL, "")
        except Broke as broke:
            log.info("%r: %d: %s", conversation, broke.failure.code, broke.failure.reason)
            conversation._note_close(broke.failure.code, broke.failure.reason)
            await _part(client, server, broke.failure.code, "")
        if conversation._asked.done():
            await _part(client, server, conversation.close_code or INTERNAL, conversation.close_reason)
    finally:
        forget()
        conversation._note_close(LOST, "")
        await _tell_closed(hooks.closed, conversation)


async def _carry(conversation: Conversation, client: End, server: End, hook: Hook) -> None:
    """Relay until one direction has ended or a hook has closed the conversation."""
    up = Direction(client, server, conversation, hook, from_client=True)
    down = Direction(server, client, conversation, hook, from_client=False)
    tasks = [own_task(up.run()), own_task(down.run())]
    try:
        await asyncio.wait((*tasks, conversation._asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in ended:
        task.result()


async def _part(client: End, server: End, code: int, reason: str) -> None:
    """Close both ends and wait up to `CLOSING` seconds for their close frames."""
    client.put_close(code, reason)
    server.put_close(code, reason)
    tasks = [own_task(client.finish()), own_task(server.finish())]
    try:
        await asyncio.wait(tasks, timeout=CLOSING)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _watch(watcher: Watcher | None, conversation: Conversation, client: End | None = None) -> None:
    if watcher is None:
        return
    try:
        told = watcher(conversation)
        if told is not None:
            await (told if client is None else _unless_left(client, told))
    except ClientLeft:
        raise
    except (Exception, *Stray) as error:
        if (failure := contained(error, name_of(watcher))) is None:
            raise
        raise HookFailed from failure


async def _tell_closed(watcher: Watcher | None, conversation: Conversation) -> None:
    try:
        await _watch(watcher, conversation)
    except HookFailed as failed:
        error = failed.__cause__
        log.error("%r: a hook failed", conversation, exc_info=error, extra={"error.type": _name(error)})


def _name(error: BaseException | None) -> str:
    return type(error).__name__


def _on_stop(conversation: Conversation) -> Callable[[], None]:
    try:
        shutdown = Shutdown.current()
    except RuntimeError:  # no server runs this connection
        return lambda: None
    return shutdown.on_stop(lambda: conversation.close(GOING_AWAY, "the server is going away"))
