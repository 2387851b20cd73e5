"""What is kept of an exchange: its messages, their bodies in memory or on disk, its times."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llama._core.errors import LlamaError, ProtocolError
from llama.http import Body, Headers
from llama.http._codings.transform import Transform, decoders

DEFAULT_MEMORY_LIMIT = 1 << 20
GRPC = "application/grpc"


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
    truncated: bool = False
    """Whether bytes beyond the size limit were dropped."""
    trailers: Headers | None = None

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
    """0 if the client got none; for a failed exchange the status of the error page."""
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
    interleaving: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """For a response that began before its request ended: pairs of response bytes and the request bytes that had
    passed before those that follow, -1 for the whole request. The first pair is that of the response's head."""
    messages: list[RecordedMessage] = field(default_factory=list[RecordedMessage])
    """Those of a WebSocket, in the order in which they passed."""
    dropped_messages: int = 0
    """How many more messages passed, which were too many to keep."""
    close_code: int = 0
    """The first close's code, 1005 if it gave none, 1006 if a side left without; 0 for what is no WebSocket."""
    closed_by_client: bool | None = None
    """Which side was the first to close; None where that was neither."""

    @property
    def failed(self) -> bool:
        """Whether an error page took the place of the response."""
        return bool(self.error) and not self.response_version and not self.response_headers

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
        self._raw: io.BytesIO | None = None  # the bytes as they came, as far as memory allows
        self.may_have_trailers = "trailer" in headers or headers.get("content-type", "").startswith(GRPC)
        codings = headers.tokens("content-encoding")
        if "content-range" in headers:  # a part of an encoded body cannot be decoded
            self.body.encoded = bool(codings)
            return
        try:
            self._decoders = decoders(codings)
        except LlamaError:
            self.body.encoded = True
        if self._decoders:
            self._raw = io.BytesIO()

    def keep_encoded(self) -> None:
        """Keep the content coding; to be called before the first byte."""
        self.body.encoded = self.body.encoded or bool(self._decoders)
        self._decoders, self._raw = [], None

    def feed(self, data: bytes) -> None:
        """The next bytes, as they pass."""
        self.body.wire_size += len(data)
        if self._raw is not None:
            if self._raw.tell() + len(data) <= self._inline:
                self._raw.write(data)
            else:
                self._raw = None
        try:
            self._decode(data, 0)
        except LlamaError:
            self._restart_encoded()

    def _restart_encoded(self) -> None:
        """Keep the bytes as they came instead: they are not what Content-Encoding says."""
        raw, self._raw, self._decoders = self._raw, None, []
        if raw is None:
            raise ProtocolError(f"a mislabelled body has more than {self._inline} bytes")
        self._discard()
        self.body.encoded = True
        self._keep(raw.getvalue())

    def _discard(self) -> None:
        """Drop what was kept so far."""
        body = self.body
        if self._file is not None and body.file is not None:
            self._file.close()
            body.file.unlink(missing_ok=True)
        self._file = body.file = None
        self._held = io.BytesIO()
        body.data, body.size, body.truncated = b"", 0, False

    def _decode(self, data: bytes, number: int) -> None:
        """Through the decoders from this one on: what one makes of few bytes may be much, so it comes in pieces."""
        if number == len(self._decoders):
            self._keep(data)
            return
        transform = self._decoders[number]
        piece = transform.update(data)
        while piece:
            self._decode(piece, number + 1)
            piece = transform.pending()

    def _keep(self, data: bytes) -> None:
        body = self.body
        body.size += len(data)
        if self._most is not None and body.size > self._most:
            data = data[: max(0, len(data) - (body.size - self._most))]
            body.truncated = True
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
        if complete and self._decoders:
            try:
                for transform in self._decoders:
                    transform.flush()
            except LlamaError:
                with contextlib.suppress(LlamaError):
                    self._restart_encoded()
            self._decoders = []
        self._raw = None
        if self._file is not None:
            self._file.close()
            self._file = None
        elif body.data is not None:
            body.data = self._held.getvalue()
        body.complete = complete or body.complete
        return body


class BodyTap(Body):
    """The same body, of which a sink sees every byte; calls back once at its end, or when it breaks off."""

    __slots__ = ("_before_chunk", "_broke", "_over", "_passed", "_sink", "_source")

    def __init__(
        self,
        source: Body,
        sink: BodySink,
        over: Callable[[], object],
        broke: Callable[[Exception], object],
        before_chunk: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._before_chunk = before_chunk
        self._source = source
        self._sink: BodySink | None = sink
        self._over: Callable[[], object] | None = over
        self._broke = broke
        self._passed = 0

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    def read_chunk_nowait(self) -> bytes:
        data = self._source.read_chunk_nowait()
        if data:
            self._feed(data)
        if self._source.ended:
            self.ended = True
            self._end()
        return data

    async def read_chunk(self) -> bytes:
        try:
            data = await self._source.read_chunk()
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
        if self._before_chunk is not None:
            self._before_chunk()
        self._passed += len(data)
        sink = self._sink
        if sink is not None:
            try:
                sink.feed(data)
            except (LlamaError, OSError):
                sink.end(complete=False)
                self._sink = None
        if self._passed == self.length and not (sink is not None and sink.may_have_trailers):
            self._end()  # a reader that knows the length may not read on

    def _end(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            if self._sink is not None:
                self._sink.end(complete=True)
                trailers = self._source.trailers
                self._sink.body.trailers = trailers.copy() if trailers else None
            over()

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        with contextlib.suppress(OSError):
            if self._sink is not None:
                self._sink.end(complete=False)
        await self._source.aclose()
