"""Records exchanges as they pass by: into a file, or for whoever wants to see them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeAlias

from llama import ws
from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http import Request, RequestHandler, Response
from llama.mitm._har.file import HarFile
from llama.mitm._recording.exchange_recorder import BodyStore, ExchangeRecorder, WebSocketRecorder
from llama.mitm._records import DEFAULT_MEMORY_LIMIT, Recorded

log = logging.getLogger("llama.mitm")

Sink: TypeAlias = Callable[[Recorded], object]
"""Is given each exchange when it is over."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Record:
    """Records what passes by."""

    inner: RequestHandler
    sink: Sink
    bodies: BodyStore
    watching: WebSocketRecorder | None = None
    file: HarFile | None = None
    users: list[int] = field(default_factory=lambda: [0])

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "mitm.record()" if self.file is None else f"mitm.record({self.file.path})"

    async def __aenter__(self) -> Record:
        self.users[0] += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.users[0] -= 1
        if not self.users[0]:
            if self.file is not None:
                self.file.close()
            self.bodies.close()

    async def __call__(self, request: Request, /) -> Response:
        passing = ExchangeRecorder(request, self.bodies, self.watching, self._give)
        try:
            response = await self.inner(request)
        except BaseException as error:
            passing.failed(error)
            raise
        passing.answered(response)
        return response

    def _give(self, recorded: Recorded) -> None:
        try:
            self.sink(recorded)
        except Exception:
            log.exception("recording %r failed", recorded)


@layer_factory("mitm.record")
def record(
    to: Sink | str | os.PathLike[str],
    *,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    max_body: int | None = None,
    messages: bool = True,
) -> Middleware[Request, Response]:
    """Record exchanges: each is written to a HAR file, or given to a function, when all of it was seen.

    That is before its last byte goes on to the client, so that who has the whole response finds it recorded.

    The file is a whole HAR 1.2 document after each entry; one that is there already is replaced. Bodies are kept
    without their content coding. Those over `memory_limit` bytes (1 MiB) go to files as they pass: beside the HAR, in a
    directory named after it, to which `_file` in an entry leads, or in a temporary one, which lasts as long as the
    server. Of a body at most `max_body` bytes are kept. The `messages` of a WebSocket are in its entry once it is over:
    the first ones, up to `memory_limit` bytes of them; those that follow, and larger ones, pass as they come and are
    counted. Recording harms no exchange: a full disk is logged.

    The times of names, connections and TLS are those of the exchange that a connection to the upstream was opened
    for, the first that it carries; where that was ahead of the request, `_connectedAhead` says so.

        mitm.proxy(ca, mitm.record("out.har"))
    """
    if memory_limit < 0 or (max_body is not None and max_body < 0):
        raise ConfigError(
            f"mitm.record(memory_limit={memory_limit}, max_body={max_body}): expected counts of bytes"
        )
    if callable(to):
        bodies, sink, file = BodyStore(memory_limit, max_body, None), to, None
        name = "mitm.record()"
    else:
        path = Path(to)
        file = HarFile(path)
        bodies, sink = BodyStore(memory_limit, max_body, path.with_name(f"{path.name}.bodies")), file.write
        name = f"mitm.record({path})"

    def build(inner: RequestHandler) -> RequestHandler:
        if not messages:
            return Record(inner, sink, bodies, file=file)
        watching = WebSocketRecorder()
        observed = ws.observe(watching.message, on_close=watching.closed, max_size=memory_limit)(inner)
        return Record(observed, sink, bodies, watching, file)

    return named_layer(name, build, input_type=Request, inner_type=Request)
