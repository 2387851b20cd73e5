"""Relays messages between the client and the server of a WebSocket, with hooks in between.

Frames are decoded and encoded again rather than copied: a hook needs whole, inflated messages, and each side negotiates
its own compression. Each direction has one task, so messages keep their order, and a slow hook or a slow reader stops
only its own direction: a direction flushes its sink before it reads more. The conversation ends with the first task,
because a WebSocket has no half-close. After a failed hook, a protocol error or a hook's close, both ends get a close
frame and at most `CLOSE_TIMEOUT` seconds to answer it. While an async hook runs, the sender's stream is watched, so
a hook that never returns cannot outlive its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeVar

from llama._core.hook_errors import ESCAPING_ERRORS, contain_error
from llama._core.loggers import logger
from llama._core.shutdown import Shutdown, detached_task
from llama._core.stack import display_name
from llama.tcp._io.cancel_on_disconnect import ClientLeft, cancel_on_disconnect_any_stream
from llama.ws._framed_endpoint import CLOSE_TIMEOUT, HIGH_WATER, FramedEndpoint
from llama.ws._relayed_websocket import Hook, LifecycleHook, Message, RelayedWebSocket
from llama.ws._wire import ABNORMAL, GOING_AWAY, INTERNAL_ERROR, Close, Event, Failure, Ping, Pong

log = logger("server")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a relay."""

    message: Hook
    opened: LifecycleHook | None
    closed: LifecycleHook | None


class HookFailedError(Exception):
    """A hook raised; `__cause__` is its exception."""


class PeerLost(Exception):
    """A peer violated the protocol or exceeded a limit."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Direction:
    """Relays events from one end to the other until the source has ended or both have closed."""

    __slots__ = ("_conversation", "_from_client", "_hook", "sink", "source")

    def __init__(
        self,
        source: FramedEndpoint,
        sink: FramedEndpoint,
        conversation: RelayedWebSocket,
        hook: Hook,
        *,
        from_client: bool,
    ) -> None:
        self.source = source
        self.sink = sink
        self._conversation = conversation
        self._hook = hook
        self._from_client = from_client

    async def run(self) -> None:
        """Relay; raises HookFailedError, PeerLost, and the errors of the streams."""
        source, sink = self.source, self.sink
        while data := await source.read():
            for events in source.feed(data):
                for event in events:
                    await self._pass(event)
                    if sink.waiting > HIGH_WATER:
                        await sink.flush()
                if sink.waiting:
                    await sink.flush()
            if source.frames.over and sink.frames.over:
                return
        self._conversation._note_close(ABNORMAL, "", self._from_client)

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
            raise PeerLost(event)

    async def _through(self, message: Message) -> None:
        """Call the hook and forward the message that it returns; raises ClientLeft if the sender disconnects."""
        hook = self._hook
        try:
            passed = hook(message)
            if isawaitable(passed):
                passed = await _cancel_on_disconnect(self.source, passed)
            if passed is None:
                return
            if not isinstance(passed, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
                raise TypeError(
                    f"the hook {display_name(hook)} returned {passed!r}: expected a Message or None"
                )
            self.sink.put_message(passed.data)
        except ClientLeft:
            raise
        except (Exception, *ESCAPING_ERRORS) as error:
            if (failure := contain_error(error, display_name(hook))) is None:
                raise
            raise HookFailedError from failure


async def _cancel_on_disconnect(end: FramedEndpoint, work: Awaitable[T]) -> T:
    """Await a hook while its sender is connected, and up to `CLOSE_TIMEOUT` seconds after its end of stream."""
    return await cancel_on_disconnect_any_stream(
        end.stream, work, "a hook had ended", ahead=HIGH_WATER, grace=CLOSE_TIMEOUT
    )


async def relay(
    conversation: RelayedWebSocket, client: FramedEndpoint, server: FramedEndpoint, hooks: Hooks
) -> None:
    """Relay a conversation until it ends; raises the errors of the streams."""
    forget = _on_stop(conversation)
    try:
        try:
            await _watch(hooks.opened, conversation, client)
            await _run(conversation, client, server, hooks.message)
        except HookFailedError as failed:
            error = failed.__cause__
            log.error("%r: a hook failed", conversation, exc_info=error, extra={"error.type": _name(error)})
            conversation._note_close(INTERNAL_ERROR, "")
            await _close_both(client, server, INTERNAL_ERROR, "")
        except PeerLost as broke:
            log.info("%r: %d: %s", conversation, broke.failure.code, broke.failure.reason)
            conversation._note_close(broke.failure.code, broke.failure.reason)
            await _close_both(client, server, broke.failure.code, "")
        if conversation._asked.done():
            await _close_both(
                client, server, conversation.close_code or INTERNAL_ERROR, conversation.close_reason
            )
    finally:
        forget()
        conversation._note_close(ABNORMAL, "")
        await _call_closed(hooks.closed, conversation)


async def _run(
    conversation: RelayedWebSocket, client: FramedEndpoint, server: FramedEndpoint, hook: Hook
) -> None:
    """Relay until one direction has ended or a hook has closed the conversation."""
    up = Direction(client, server, conversation, hook, from_client=True)
    down = Direction(server, client, conversation, hook, from_client=False)
    tasks = [detached_task(up.run()), detached_task(down.run())]
    try:
        await asyncio.wait((*tasks, conversation._asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in ended:
        task.result()


async def _close_both(client: FramedEndpoint, server: FramedEndpoint, code: int, reason: str) -> None:
    """Close both ends and wait up to `CLOSE_TIMEOUT` seconds for their close frames."""
    client.put_close(code, reason)
    server.put_close(code, reason)
    tasks = [detached_task(client.finish()), detached_task(server.finish())]
    try:
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _watch(
    watcher: LifecycleHook | None, conversation: RelayedWebSocket, client: FramedEndpoint | None = None
) -> None:
    if watcher is None:
        return
    try:
        told = watcher(conversation)
        if told is not None:
            await (told if client is None else _cancel_on_disconnect(client, told))
    except ClientLeft:
        raise
    except (Exception, *ESCAPING_ERRORS) as error:
        if (failure := contain_error(error, display_name(watcher))) is None:
            raise
        raise HookFailedError from failure


async def _call_closed(watcher: LifecycleHook | None, conversation: RelayedWebSocket) -> None:
    try:
        await _watch(watcher, conversation)
    except HookFailedError as failed:
        error = failed.__cause__
        log.error("%r: a hook failed", conversation, exc_info=error, extra={"error.type": _name(error)})


def _name(error: BaseException | None) -> str:
    return type(error).__name__


def _on_stop(conversation: RelayedWebSocket) -> Callable[[], None]:
    try:
        shutdown = Shutdown.current()
    except RuntimeError:  # no server runs this connection
        return lambda: None
    return shutdown.on_stop(lambda: conversation.close(GOING_AWAY, "the server is going away"))
