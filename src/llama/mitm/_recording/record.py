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
from llama._core.stack import factory, named_layer
from llama.http import Exchange, Request, Response
from llama.mitm._har.file import HarFile
from llama.mitm._recording.exchange_recorder import Bodies, Passing, Watching
from llama.mitm._records import INLINE, Recorded

log = logging.getLogger("llama.mitm")

Sink: TypeAlias = Callable[[Recorded], object]
"""Is given each exchange when it is over."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Record:
    """Records what passes by."""

    inner: Exchange
    sink: Sink
    bodies: Bodies
    watching: Watching | None = None
    file: HarFile | None = None
    users: list[int] = field(default_factory=lambda: [0])

    __takes__: ClassVar[type] = Request

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
        passing = Passing(request, self.bodies, self.watching, self._give)
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


@factory("mitm.record")
def record(
    to: Sink | str | os.PathLike[str],
    *,
    inline: int = INLINE,
    most: int | None = None,
    messages: bool = True,
) -> Middleware[Request, Response]:
    """Record exchanges: each is written to a HAR file, or given to a function, when all of it was seen.

    That is before its last byte goes on to the client, so that who has the whole response finds it recorded.

    The file is a whole HAR 1.2 document after each entry; one that is there already is replaced. Bodies are kept
    without their content coding. Those over `inline` bytes (1 MiB) go to files as they pass: beside the HAR, in a
    directory named after it, to which `_file` in an entry leads, or in a temporary one, which lasts as long as the
    server. Of a body at most `most` bytes are kept. The `messages` of a WebSocket are in its entry once it is over:
    the first ones, up to `inline` bytes of them; those that follow, and larger ones, pass as they come and are
    counted. Recording harms no exchange: a full disk is logged.

    The times of names, connections and TLS are those of the exchange that a connection to the upstream was opened
    for, the first that it carries; where that was ahead of the request, `_connectedAhead` says so.

        mitm.proxy(ca, mitm.record("out.har"))
    """
    if inline < 0 or (most is not None and most < 0):
        raise ConfigError(f"mitm.record(inline={inline}, most={most}): expected counts of bytes")
    if callable(to):
        bodies, sink, file = Bodies(inline, most, None), to, None
        name = "mitm.record()"
    else:
        path = Path(to)
        file = HarFile(path)
        bodies, sink = Bodies(inline, most, path.with_name(f"{path.name}.bodies")), file.write
        name = f"mitm.record({path})"

    def build(inner: Exchange) -> Exchange:
        if not messages:
            return Record(inner, sink, bodies, file=file)
        watching = Watching()
        observed = ws.observe(watching.message, on_close=watching.closed, max_size=inline)(inner)
        return Record(observed, sink, bodies, watching, file)

    return named_layer(name, build, takes=Request, gives=Request)
