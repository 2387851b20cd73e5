"""Records exchanges as they pass by: into a file, or for whoever wants to see them."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, TypeAlias

from llama import ws
from llama._errors import ConfigError
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http import Body, Exchange, Headers, Request, Response
from llama.mitm._har_file import HarFile
from llama.mitm._interception import Interception
from llama.mitm._recorded import INLINE, BodySink, Recorded, RecordedBody, RecordedMessage, Tee

log = logging.getLogger("llama.mitm")

Sink: TypeAlias = Callable[[Recorded], object]
"""Is given each exchange when it is over."""


@dataclass(slots=True)
class Bodies:
    """Where bodies go that are too large for memory."""

    inline: int
    most: int | None
    folder: Path | None
    made: tempfile.TemporaryDirectory[str] | None = None
    count: int = 0

    def sink(self, headers: Headers) -> BodySink:
        """What takes one body."""
        return BodySink(headers, self.inline, self.most, self._open)

    def _open(self) -> tuple[Path, BinaryIO]:
        if self.folder is None:
            self.made = tempfile.TemporaryDirectory(prefix="llama-bodies-")
            self.folder = Path(self.made.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            self.count += 1
            path = self.folder / f"{self.count:06}"
            with contextlib.suppress(FileExistsError):
                return path, path.open("xb")

    def close(self) -> None:
        """Remove what nobody asked to keep."""
        made, self.made = self.made, None
        if made is not None:
            self.folder = None
            made.cleanup()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Record:
    """Records what passes by."""

    inner: Exchange
    sink: Sink
    bodies: Bodies
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
        began = time.monotonic()
        recorded = _begun(request)
        sent = self._tap(request)
        if request.protocol:
            request.extensions.set(_Watched(recorded, self.bodies.inline))
        try:
            response = await self.inner(request)
        except BaseException as error:
            recorded.error = str(error) or type(error).__name__
            recorded.wait = time.monotonic() - began
            recorded.body = sent()
            self._give(recorded)
            raise
        recorded.wait = time.monotonic() - began
        recorded.status, recorded.reason = response.status, response.reason
        recorded.response_version = response.version
        recorded.response_headers = response.headers.copy()
        got = self._tap(response)

        def over() -> None:
            recorded.receive = time.monotonic() - began - recorded.wait
            recorded.body, recorded.response_body = sent(), got()
            self._give(recorded)

        response.on_close(over)
        return response

    def _tap(self, message: Request | Response) -> Callable[[], RecordedBody]:
        """Look at a message's body as it passes; what gives it in the end."""
        body: Body = message.body
        data = body.data
        if data is None or len(data) > self.bodies.inline:
            sink = self.bodies.sink(message.headers)
            message.replace_body(Tee(body, sink))
            return lambda: sink.end(complete=False)
        if not data:
            return RecordedBody
        return lambda: self._whole(message.headers, data)

    def _whole(self, headers: Headers, data: bytes) -> RecordedBody:
        sink = self.bodies.sink(headers)
        try:
            sink.feed(data)
        except ValueError:  # it is not what its coding says
            return RecordedBody(data, size=len(data), wire_size=len(data), encoded=True)
        return sink.end(complete=True)

    def _give(self, recorded: Recorded) -> None:
        try:
            self.sink(recorded)
        except Exception:
            log.exception("recording %r failed", recorded)


class _Watched:
    """A WebSocket that is recorded: its messages, as far as there is room for them."""

    __slots__ = ("recorded", "room")

    def __init__(self, recorded: Recorded, room: int) -> None:
        self.recorded = recorded
        self.room = room

    def add(self, message: ws.Message) -> None:
        """A message passes."""
        self.room -= len(message.data)
        if self.room < 0:
            self.recorded.left_out += 1
            return
        kept = RecordedMessage(message.from_client, time.time(), message.data)
        self.recorded.messages.append(kept)


def _see(message: ws.Message) -> ws.Message:
    watched = message.conversation.extensions.get(_Watched)
    if watched is not None:
        watched.add(message)
    return message


def _begun(request: Request) -> Recorded:
    known = request.extensions.get(Interception)
    client = request.client
    return Recorded(
        time.time(),
        request.method,
        request.url,
        request.version,
        request.headers.copy(),
        client="" if client is None else str(client),
        server="" if known is None else str(known.target),
    )


@factory("mitm.record")
def record(
    to: Sink | str | os.PathLike[str],
    *,
    inline: int = INLINE,
    most: int | None = None,
    messages: bool = True,
) -> Middleware[Request, Response]:
    """Record exchanges: each is written to a HAR file, or given to a function, when it is over.

    The file is a whole HAR 1.2 document after each entry; one that is there already is replaced. Bodies are kept
    without their content coding. Those over `inline` bytes (1 MiB) go to files as they pass: beside the HAR, in a
    directory named after it, to which `_file` in an entry leads, or in a temporary one, which lasts as long as the
    server. Of a body at most `most` bytes are kept. The `messages` of a WebSocket are in its entry, `inline` bytes
    of them at most, once it is over. Recording harms no exchange: a full disk is logged.

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
        return Record(ws.inspect(_see)(inner) if messages else inner, sink, bodies, file)

    return named_layer(name, build, takes=Request, gives=Request)
