"""What is kept of an exchange: its messages, their bodies in memory or on disk, its times."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llama._core.errors import LlamaError
from llama.http import Body, Headers
from llama.http._codings.transform import Transform, decoders

INLINE = 1 << 20


@dataclass(slots=True)
class RecordedBody:
    """A body as it was, without its content coding where that is known."""

    data: bytes | None = b""
    """All of it; None where it is in a file."""
    file: Path | None = None
    size: int = 0
    """Bytes, content coding taken off."""
    wire_size: int = 0
    """Bytes as they passed."""
    encoded: bool = False
    """Whether a content coding is still on."""
    complete: bool = True
    """Whether it passed to its end."""

    def read(self) -> bytes:
        """All of it, from wherever it is."""
        if self.data is not None:
            return self.data
        return b"" if self.file is None else self.file.read_bytes()


@dataclass(slots=True)
class RecordedMessage:
    """A WebSocket message, as it passed."""

    from_client: bool
    time: float
    """Seconds since 1970."""
    data: str | bytes


@dataclass(slots=True)
class Recorded:
    """An exchange that is over."""

    started: float
    """Seconds since 1970."""
    method: str
    url: str
    version: str
    headers: Headers
    body: RecordedBody = field(default_factory=RecordedBody)
    status: int = 0
    """0 where there was no response."""
    reason: str = ""
    response_version: str = ""
    response_headers: Headers = field(default_factory=Headers)
    response_body: RecordedBody = field(default_factory=RecordedBody)
    wait: float = 0.0
    """Seconds until the response's head."""
    receive: float = 0.0
    """Seconds from there to the end."""
    send: float = 0.0
    """Of those until the response's head, how many went by until the request was sent."""
    dns: float | None = None
    """Seconds that the upstream's name took, where its connection was opened for this exchange."""
    connect: float | None = None
    """Seconds that the connection took then, without its name and TLS."""
    tls: float | None = None
    """Seconds that its TLS handshake took."""
    ahead: bool = False
    """Whether the connection was opened before the request was there, so that it waited for none of this."""
    connection: str = ""
    """What tells the upstream's connections apart."""
    address: str = ""
    """The address that was connected to: the server's, or that of a proxy on the way."""
    port: int = 0
    """Its port; 0 where that is not known."""
    client: str = ""
    server: str = ""
    """The target, where the connection was looked into."""
    error: str = ""
    """Why there was no response, or why it broke off."""
    messages: list[RecordedMessage] = field(default_factory=list[RecordedMessage])
    """Those of a WebSocket, in the order in which they passed."""
    left_out: int = 0
    """How many more messages passed, which were too many to keep."""
    close_code: int = 0
    """The first close's code, 1005 if it gave none, 1006 if a side left without; 0 for what is no WebSocket."""
    closed_by_client: bool | None = None
    """Which side was the first to close; None where that was neither."""

    def __repr__(self) -> str:
        return f"<recorded {self.method} {self.url} {self.status or self.error}>"


class BodySink:
    """Takes a body's bytes as they pass: in memory up to a size, then to a file that `open_file` opens."""

    def __init__(
        self, headers: Headers, inline: int, most: int | None, open_file: Callable[[], tuple[Path, BinaryIO]]
    ) -> None:
        self.body = RecordedBody(complete=False)
        self._inline = inline
        self._most = most
        self._open = open_file
        self._held = io.BytesIO()
        self._file: BinaryIO | None = None
        self._decoders: list[Transform] = []
        codings = headers.tokens("content-encoding")
        try:
            self._decoders = decoders(codings)
        except LlamaError:
            self.body.encoded = True

    def feed(self, data: bytes) -> None:
        """The next bytes, as they pass."""
        self.body.wire_size += len(data)
        self._decode(data, 0)

    def _decode(self, data: bytes, number: int) -> None:
        """Through the decoders from this one on: what one makes of few bytes may be much, so it comes in pieces."""
        if number == len(self._decoders):
            self._keep(data)
            return
        transform = self._decoders[number]
        piece = transform.feed(data)
        while piece:
            self._decode(piece, number + 1)
            piece = transform.more()

    def _keep(self, data: bytes) -> None:
        body = self.body
        body.size += len(data)
        if self._most is not None and body.size > self._most:
            data = data[: max(0, len(data) - (body.size - self._most))]
        if self._file is None and self._held.tell() + len(data) > self._inline:
            body.file, self._file = self._open()
            self._file.write(self._held.getbuffer())
            self._held = io.BytesIO()
            body.data = None
        if data:
            (self._file or self._held).write(data)

    def end(self, *, complete: bool) -> RecordedBody:
        """The body, whole or as far as it came; again gives the same."""
        body = self.body
        if self._file is not None:
            self._file.close()
            self._file = None
        elif body.data is not None:
            body.data = self._held.getvalue()
        body.complete = complete or body.complete
        return body


class Tee(Body):
    """The same body, of which a sink sees every byte; calls back once at its end, or when it breaks off."""

    __slots__ = ("_broke", "_over", "_passed", "_sink", "_source")

    def __init__(
        self,
        source: Body,
        sink: BodySink,
        over: Callable[[], object],
        broke: Callable[[Exception], object],
    ) -> None:
        super().__init__()
        self._source = source
        self._sink: BodySink | None = sink
        self._over: Callable[[], object] | None = over
        self._broke = broke
        self._passed = 0

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    def chunk_nowait(self) -> bytes:
        data = self._source.chunk_nowait()
        if data:
            self._feed(data)
        if self._source.ended:
            self.ended = True
            self._end()
        return data

    async def chunk(self) -> bytes:
        try:
            data = await self._source.chunk()
        except (LlamaError, OSError) as error:
            self._broke(error)
            raise
        if data:
            self._feed(data)
        else:
            self.ended = True
            self._end()
        return data

    def _feed(self, data: bytes) -> None:
        """Recording never harms what is recorded: a coding that is broken ends the recording."""
        self._passed += len(data)
        if self._sink is not None:
            try:
                self._sink.feed(data)
            except (LlamaError, OSError):
                self._sink.end(complete=False)
                self._sink = None
        if self._passed == self.length:  # who knows the length may ask for nothing more
            self._end()

    def _end(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            if self._sink is not None:
                self._sink.end(complete=True)
            over()

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        with contextlib.suppress(OSError):
            if self._sink is not None:
                self._sink.end(complete=False)
        await self._source.aclose()
