"""What runs beside servers, for as long as any of them does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama import Shutdown
from llama.http import Request, RequestHandler, Response

Task: TypeAlias = Callable[[], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class _WithTasks:
    """An exchange that has company."""

    inner: RequestHandler
    company: BackgroundTasks

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "company"

    async def __call__(self, request: Request, /) -> Response:
        return await self.inner(request)


class BackgroundTasks:
    """A layer that does nothing to exchanges: what runs while servers do that hold it.

    `begin` is called with the first of them; the tasks begin then, and are cancelled with the last.
    """

    def __init__(self, *tasks: Task, begin: Callable[[], object] | None = None) -> None:
        self._tasks = tasks
        self._begin = begin
        self._shutdown = Shutdown()
        self._servers = 0

    def __call__(self, inner: RequestHandler) -> _WithTasks:
        return _WithTasks(inner, self)

    async def __aenter__(self) -> BackgroundTasks:
        self._servers += 1
        if self._servers == 1:  # at a reload others come before these have gone
            if self._begin is not None:
                self._begin()
            self._shutdown = Shutdown()
            for each in self._tasks:
                self._shutdown.spawn(each())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._servers -= 1
        if not self._servers:
            self._shutdown.cancel()
            await self._shutdown.drain()
