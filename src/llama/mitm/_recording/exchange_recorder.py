"""An exchange that is recorded, while it passes."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama import ws
from llama.http import Headers, Request, Response
from llama.http._client.connection_info import ConnectionUsed
from llama.http._messages.error_response import status_of
from llama.mitm._interception import Interception
from llama.mitm._records import BodySink, BodyTap, Recorded, RecordedBody, RecordedMessage
from llama.tcp._io.connect_timing import ConnectTiming

_MAX_INTERLEAVING = 10_000  # pairs for one exchange


@dataclass(slots=True)
class BodyStore:
    """Where bodies go that are too large for memory."""

    memory_limit: int
    max_body: int | None
    folder: Path | None
    made: tempfile.TemporaryDirectory[str] | None = None
    count: int = 0

    def sink(self, headers: Headers) -> BodySink:
        """What takes one body."""
        return BodySink(headers, self.memory_limit, self.max_body, self._open)

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


class _Tap:
    """Looks at one message's body as it passes; calls back when it has seen the end."""

    __slots__ = ("_data", "_message", "_sink", "is_whole")

    def __init__(
        self,
        message: Request | Response,
        bodies: BodyStore,
        ended: Callable[[], object],
        failed: Callable[[Exception], object],
        before_chunk: Callable[[], object] | None = None,
    ) -> None:
        body = message.body
        self._message = message
        data = body.buffered
        self._sink = bodies.sink(message.headers)
        if before_chunk is not None:  # it is sent again in the same pieces
            self._sink.keep_encoded()
        self._data = data if data is not None and len(data) <= bodies.memory_limit else None
        self.is_whole = self._data is not None
        """Whether all of it was seen."""
        if self._data is None:

            def over() -> None:
                self.is_whole = True
                ended()

            message.replace_body(BodyTap(body, self._sink, over, failed, before_chunk))

    @property
    def passed(self) -> int:
        """The bytes that passed."""
        return self._sink.body.wire_size

    def take(self) -> RecordedBody:
        """What was seen of it."""
        body = self._sink.end(complete=False) if self._data is None else whole(self._sink, self._data)
        trailers = self._message.trailers
        if self.is_whole and body.trailers is None and trailers:
            body.trailers = trailers.copy()
        return body


def whole(sink: BodySink, data: bytes) -> RecordedBody:
    """A body that is in memory."""
    if not data:
        return RecordedBody()
    try:
        sink.feed(data)
    except ValueError:  # it is not what its coding says
        return RecordedBody(data, size=len(data), wire_size=len(data), encoded=True)
    return sink.end(complete=True)


class ExchangeRecorder:
    """Puts an exchange down as it passes; gives it away once, when both messages are through or it is closed."""

    __slots__ = (
        "_began", "_bodies", "_carrier", "_give", "_given", "_head", "_request", "_response", "_sent", "recorded",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        bodies: BodyStore,
        watching: WebSocketRecorder | None,
        give: Callable[[Recorded], object],
    ) -> None:
        self.recorded = new_record(request)
        self._bodies = bodies
        self._give = give
        self._given = False
        self._response: _Tap | None = None
        self._began = self._head = self._sent = time.monotonic()
        self._carrier = (
            request.extensions.get(ConnectionUsed) or ConnectionUsed()
        )  # that of another recording
        request.extensions.set(self._carrier)
        self._request = _Tap(request, bodies, self._has_sent, _nothing)
        if request.upgrade_protocol and watching is not None:
            watching.begin(request, self.recorded, bodies.memory_limit)

    def failed(self, error: BaseException) -> None:
        """There is no response but the error page of the server."""
        self.recorded.error = str(error) or type(error).__name__
        if isinstance(error, Exception):
            self.recorded.status = status_of(error)
        self.recorded.wait = time.monotonic() - self._began
        self._over()

    def answered(self, response: Response) -> None:
        """The response's head is there."""
        recorded = self.recorded
        self._head = time.monotonic()
        recorded.wait = self._head - self._began
        self._time()
        recorded.status, recorded.reason = response.status, response.reason
        if response.upgrade is not None and recorded.method == "GET":
            recorded.status = 101  # extended CONNECT is put down as HTTP/1.1 has it
        recorded.response_version = response.version
        recorded.response_headers = response.headers.copy()
        note = None
        if not self._request.is_whole and response.upgrade is None:
            recorded.interleaving.append((0, self._request.passed))
            note = self._note_interleaving
        self._response = _Tap(response, self._bodies, self._maybe_over, self._broke, note)
        if response.upgrade is None:
            self._maybe_over()
        if not self._given:
            response.on_close(self._over)

    def _time(self) -> None:
        """Put down how the request reached the upstream, once the response's head is there."""
        recorded, stream = self.recorded, self._carrier.stream
        dialled = stream.extensions.get(ConnectTiming) if stream is not None else None
        ready = self._began
        if dialled is not None:
            recorded.connection = str(dialled.number)
            recorded.address, recorded.port = dialled.address, dialled.port
            if dialled.is_reported is None or dialled.is_reported is self._carrier:
                dialled.is_reported = self._carrier
                recorded.dns, recorded.tls = dialled.dns, dialled.tls
                if not dialled.is_reused:
                    recorded.connect = dialled.ended - dialled.began - (dialled.dns or 0.0)
                recorded.ahead = dialled.began < self._began
                ready = max(ready, dialled.finished)
        sent = self._sent if self._request.is_whole else self._head
        recorded.send = max(0.0, min(sent, self._head) - ready)

    def _note_interleaving(self) -> None:
        pairs, response = self.recorded.interleaving, self._response
        passed = -1 if self._request.is_whole else self._request.passed
        if response is not None and pairs[-1][1] != passed and len(pairs) < _MAX_INTERLEAVING:
            pairs.append((response.passed, passed))

    def _has_sent(self) -> None:
        self._sent = time.monotonic()
        self._maybe_over()

    def _broke(self, error: Exception) -> None:
        self.recorded.error = str(error) or type(error).__name__

    def _maybe_over(self) -> None:
        if self._response is not None and self._response.is_whole and self._request.is_whole:
            self._over()

    def _over(self) -> None:
        if self._given:
            return
        self._given = True
        recorded = self.recorded
        recorded.body = self._request.take()
        if self._response is not None:
            recorded.receive = time.monotonic() - self._head
            recorded.response_body = self._response.take()
            if recorded.interleaving:
                self._note_interleaving()
        self._give(recorded)


def _nothing(error: Exception) -> None:
    """A request's body that breaks off fails the exchange, which tells of it."""


class WebSocketRecorder:
    """The hooks of one recording, which put WebSockets down: their messages, as far as there is room for them."""

    __slots__ = ()

    def begin(self, request: Request, recorded: Recorded, room: int) -> None:
        """What comes of this request is put down there."""
        watched = request.extensions.get(_ActiveRecord)
        if watched is None:
            watched = _ActiveRecord()
            request.extensions.set(watched)
        watched[self] = _WebSocketRecord(recorded, room)  # of several recordings each has its own

    def _find(self, observation: ws.Observation) -> _WebSocketRecord | None:
        watched = observation.extensions.get(_ActiveRecord)
        return None if watched is None else watched.get(self)

    def message(self, message: ws.ObservedMessage) -> None:
        """A message passes. From the first one that has no room on, messages are counted and not read."""
        found = self._find(message.observation)
        if found is None:
            return
        found.room -= message.size
        if message.data is None or found.room < 0:
            found.room = 0
            found.recorded.dropped_messages += 1
            message.observation.limit(0)
            return
        kept = RecordedMessage(message.from_client, time.time(), message.data)
        found.recorded.messages.append(kept)
        if found.room:
            message.observation.limit(found.room)

    def closed(self, observation: ws.Observation) -> None:
        """It has ended."""
        found = self._find(observation)
        if found is not None:
            found.recorded.close_code = observation.close_code or 0
            found.recorded.closed_by_client = observation.closed_by_client


@dataclass(slots=True)
class _WebSocketRecord:
    recorded: Recorded
    room: int


class _ActiveRecord(dict[WebSocketRecorder, _WebSocketRecord]):
    """A WebSocket that is recorded, in the extensions of its request: for each recording, where to."""

    __slots__ = ()


def method_and_url(request: Request) -> tuple[str, str]:
    """Those of a request; an extended CONNECT (RFC 8441) counts as the GET that HTTP/1.1 sends in its place."""
    if request.upgrade_protocol and request.method == "CONNECT":
        return "GET", f"{request.scheme}://{request.authority}{request.path}"
    return request.method, request.url


def new_record(request: Request) -> Recorded:
    """What is known of an exchange by its request, but for the body."""
    known = request.extensions.get(Interception)
    client = request.client
    method, url = method_and_url(request)
    return Recorded(
        time.time(),
        method,
        url,
        request.version,
        request.headers.copy(),
        client="" if client is None else str(client),
        server="" if known is None else str(known.target),
    )
