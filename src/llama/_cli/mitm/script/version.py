"""One version of a script, and how it works around an exchange until its last exchange has ended."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, TypeAlias, cast

from llama import ConfigError, http, layer, mitm, ws
from llama._core.loggers import logger
from llama._core.resources import find_resources
from llama._core.service import Middleware
from llama._core.shutdown import detached_task
from llama.http import Request, RequestHandler, Response
from llama.mitm._hooks import hooked

log = logger("mitm")
HttpLayer: TypeAlias = Middleware[Request, Response]
NAMES = ("layers", "on_message", "on_open", "on_close", "on_chunk")


@dataclass(frozen=True, slots=True, eq=False)
class ScriptVersion:
    """What one version of a script says."""

    layers: tuple[HttpLayer, ...]
    chunks: mitm.ChunkHook | None

    @classmethod
    def of(cls, module: ModuleType, where: str) -> ScriptVersion:
        """What a module says; ConfigError where that is nothing, TypeError for what is no layer."""
        said = {name: module.__dict__[name] for name in NAMES if module.__dict__.get(name) is not None}
        if not said:
            raise ConfigError(f"expected a list named layers, or one of {', '.join(NAMES[1:])}; found none")
        layers = _layers(said.pop("layers", ()))
        for name, hook in said.items():
            if not callable(hook):
                raise ConfigError(f"{name} is {hook!r}: expected a function")
        chunks = cast("mitm.ChunkHook | None", said.pop("on_chunk", None))
        if said:
            layers.append(
                ws.inspect(
                    cast("ws.Hook", said.get("on_message", _unchanged)),
                    on_open=cast("ws.LifecycleHook | None", said.get("on_open")),
                    on_close=cast("ws.LifecycleHook | None", said.get("on_close")),
                )
            )
        hooked(layers, _nowhere, where)
        return cls(tuple(layers), chunks)


def _layers(said: object) -> list[HttpLayer]:
    if not isinstance(said, list | tuple):
        raise ConfigError(f"layers is {said!r}: expected a list of layers")
    return [_as_layer(each) for each in cast("list[object]", said)]


def _as_layer(each: object) -> HttpLayer:
    """A layer; a bare `async def hook(request, inner)` is made one."""
    if inspect.iscoroutinefunction(each) and len(inspect.signature(each).parameters) == 2:
        function = cast("Callable[[Request, RequestHandler], asyncio.Future[Response]]", each)
        return layer(function)
    return cast("HttpLayer", each)


def _unchanged(message: ws.Message) -> ws.Message:
    return message


async def _nowhere(request: Request) -> Response:
    """Stands in for the exchange within while layers are only looked at."""
    return Response(503)


class ActiveScript:
    """An edition around an exchange: who uses it, and what it owns."""

    def __init__(self, edition: ScriptVersion, inner: RequestHandler, where: str) -> None:
        self.exchange = hooked(edition.layers, inner, where)
        known = {id(each) for each in find_resources(inner)}
        self.owned = [each for each in find_resources(self.exchange) if id(each) not in known]
        self.users = 0
        self.task: asyncio.Task[None] | None = None
        self._over: asyncio.Event | None = None

    async def open(self) -> None:
        """Enter what it owns, in a task of its own, which leaves it again; raises what entering raises."""
        if not self.owned or self.task is not None:
            return
        self._over = asyncio.Event()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = detached_task(self._hold(self._over, ready))
        try:
            await ready
        except BaseException:
            self.task.cancel()
            await asyncio.wait((self.task,))
            raise

    async def _hold(self, over: asyncio.Event, ready: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as exits:
                await _enter(exits, self.owned)
                ready.set_result(None)
                await over.wait()
        except Exception as error:
            if ready.done():
                log.exception("what a script's layers own could not be closed")
            else:
                ready.set_exception(error)

    async def handle(self, request: Request) -> Response:
        """An exchange, to whose end it is held."""
        self.users += 1
        try:
            response = await self.exchange(request)
        except BaseException:
            self._leave()
            raise
        response.on_close(self._leave)
        return response

    def _leave(self) -> None:
        self.users -= 1
        if self.users < 0:  # it was let go, and this is the last
            self.end()

    def retire(self) -> None:
        """Let it go with its last exchange."""
        self.users -= 1
        if self.users < 0:
            self.end()

    def end(self) -> None:
        """Let it go."""
        if self._over is not None:
            self._over.set()


async def _enter(exits: AsyncExitStack, owned: list[AbstractAsyncContextManager[object]]) -> None:
    for each in owned:
        await exits.enter_async_context(each)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ScriptLayer:
    """Sends each exchange through the layers that are current when it begins."""

    inner: RequestHandler
    place: ScriptSlot
    name: str

    __input_type__: ClassVar[type] = http.Request

    def __repr__(self) -> str:
        return self.name

    async def __aenter__(self) -> ScriptLayer:
        await self.place.enter()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.place.leave()

    async def __call__(self, request: Request, /) -> Response:
        work = self.place.work
        return await (work.exchange(request) if work.task is None else work.handle(request))


class ScriptSlot:
    """Where a script stands in a stack: the edition at work there, and those that are not yet over."""

    def __init__(
        self,
        inner: RequestHandler,
        where: str,
        current: Callable[[], ScriptVersion],
        places: list[ScriptSlot],
    ) -> None:
        self._inner = inner
        self._where = where
        self._current = current
        self._places = places
        self._old: set[asyncio.Task[None]] = set()
        self._entered = False
        self.work = ActiveScript(current(), inner, where)
        places.append(self)

    async def enter(self) -> None:
        """The server begins."""
        if self not in self._places:  # it begins again
            self._places.append(self)
            self.work = ActiveScript(self._current(), self._inner, self._where)
        self._entered = True
        await self.work.open()

    async def leave(self) -> None:
        """The server has ended, and all exchanges with it."""
        self._entered = False
        self._places.remove(self)
        self.work.end()
        tasks = [*self._old] if self.work.task is None else [*self._old, self.work.task]
        if tasks:
            await asyncio.wait(tasks)
        self.work.task = None

    async def prepare(self, edition: ScriptVersion) -> ActiveScript:
        """The next edition, opened."""
        work = ActiveScript(edition, self._inner, self._where)
        if self._entered:
            await work.open()
        return work

    def replace(self, work: ActiveScript) -> None:
        """From here on exchanges go through another edition."""
        if self not in self._places:  # it has been left meanwhile
            work.end()
            return
        before, self.work = self.work, work
        if before.task is not None:
            self._old.add(before.task)
            before.task.add_done_callback(self._old.discard)
            before.retire()
