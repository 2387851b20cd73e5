"""Replay of what was recorded: as a server, or as a client."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeAlias

from llama._core.errors import ConfigError, LlamaError, Refused
from llama._core.service import Middleware
from llama._core.stack import check_takes, factory, named_layer
from llama.http import Body, Exchange, Request, Response
from llama.http._proxy.hop_by_hop import HOP_BY_HOP
from llama.mitm._har.document import read_har
from llama.mitm._layers.synthetic import marked
from llama.mitm._layers.url_prefix import normal
from llama.mitm._records import Recorded, RecordedBody
from llama.mitm._replay.websocket import is_websocket, spoken_again

log = logging.getLogger("llama.mitm")
Source: TypeAlias = str | os.PathLike[str] | Iterable[Recorded]
_Key: TypeAlias = tuple[str, str, bytes]
_PIECE = 1 << 18
_WEBSOCKET = "websocket"  # in the place of a method
_FRAMING = ("content-length", *HOP_BY_HOP)


class FileBody(Body):
    """A body from a file, opened when it is first read."""

    __slots__ = ("_file", "_path")

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(size)
        self._path = path
        self._file: BinaryIO | None = None

    async def chunk(self) -> bytes:
        if self.ended:
            return b""
        if self._file is None:
            self._file = self._path.open("rb")
        data = self._file.read(_PIECE)
        if not data:
            await self.aclose()
        return data

    async def aclose(self) -> None:
        self.ended = True
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _body(recorded: RecordedBody) -> Body | bytes:
    if recorded.file is not None:
        return FileBody(recorded.file, recorded.size)
    return recorded.data or b""


def load(source: Source) -> list[Recorded]:
    """The exchanges of a HAR file, or those that are given."""
    return read_har(Path(source)) if isinstance(source, str | os.PathLike) else list(source)


def answer(recorded: Recorded) -> Response:
    """The response of a recorded exchange."""
    headers = recorded.response_headers.copy()
    headers.discard(*_FRAMING)
    body = recorded.response_body
    if not body.encoded:
        headers.discard("content-encoding")
    response = Response(recorded.status, headers, _body(body))
    response.reason = recorded.reason
    if recorded.method == "HEAD" and "content-length" in recorded.response_headers:
        response.headers["Content-Length"] = recorded.response_headers["content-length"]
    return response


@dataclass(slots=True)
class _Turn:
    """The answers to one question, in their order; the last one again and again."""

    answers: list[Recorded] = field(default_factory=list[Recorded])
    next: int = 0

    def take(self) -> Recorded:
        taken = self.answers[min(self.next, len(self.answers) - 1)]
        self.next += 1
        return taken


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Replay:
    """Answers what was recorded."""

    turns: dict[_Key, _Turn]
    otherwise: Exchange | None
    most: int

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"mitm.replay({sum(len(each.answers) for each in self.turns.values())} exchanges)"

    async def __call__(self, request: Request, /) -> Response:
        url = normal(request.scheme or "http", request.authority, request.path)
        if "websocket" in request.protocol.split(", ") and (turn := self.turns.get((_WEBSOCKET, url, b""))):
            return marked(await spoken_again(turn.take(), _as_it_is, _note)(request), "replayed")
        digest = b""
        if request.body.length != 0:
            data = await request.body.read(self.most)
            request.body = data
            digest = _digest(data)
        turn = self.turns.get((request.method, url, digest))
        if turn is not None:
            return marked(answer(turn.take()), "replayed")
        if self.otherwise is not None:
            return await self.otherwise(request)
        with_body = f" with a body of {len(request.body.data or b'')} bytes" if digest else ""
        raise Refused(f"nothing was recorded for {request.method} {url}{with_body}", status=502)


def _as_it_is(data: str | bytes) -> str | bytes:
    return data


def _note(said: str | bytes, expected: str | bytes | None) -> None:
    log.warning("a replayed WebSocket's client says %.100r, where it had said %.100r", said, expected)


def _digest(data: bytes) -> bytes:
    return sha256(data).digest() if data else b""


def _turns(exchanges: Iterable[Recorded]) -> dict[_Key, _Turn]:
    turns: dict[_Key, _Turn] = {}
    for each in exchanges:
        request = Request(each.method, each.url)
        url = normal(request.scheme, request.authority, request.path)
        if is_websocket(each):
            url = f"http{url[2:]}" if url.startswith("ws") else url
            turns.setdefault((_WEBSOCKET, url, b""), _Turn()).answers.append(each)
            continue
        if each.status < 200:  # there was no answer, or it was an upgrade to something else
            continue
        turns.setdefault((each.method, url, _digest(each.body.read())), _Turn()).answers.append(each)
    return turns


@factory("mitm.replay", "service")
def replay(source: Source, *, otherwise: Exchange | None = None, most: int = 16 << 20) -> Exchange:
    """Answer as was recorded: server replay, from a HAR file or from exchanges.

    A request is known by method, URL and body (of at most `most` bytes); where it was answered several times the
    answers come in their order, and the last one again and again. On a WebSocket the server's part comes as the
    client says its own; where it says something else it is closed with 1008. What is not known goes to `otherwise`,
    or is Refused (502). Raises ConfigError for what is no HAR file.

        run(stack(http.server(), mitm.replay("out.har")), listen="127.0.0.1:8080")
    """
    if otherwise is not None:
        check_takes(otherwise, Request, "mitm.replay(otherwise=)")
    return Replay(_turns(load(source)), otherwise, most)


@factory("mitm.replayed")
def replayed(source: Source, *, strict: bool = False, most: int = 16 << 20) -> Middleware[Request, Response]:
    """The same as a layer: what is not known goes on to the upstream, or with `strict` is Refused (502)."""
    turns = _turns(load(source))

    def build(inner: Exchange) -> Exchange:
        return Replay(turns, None if strict else inner, most)

    return named_layer("mitm.replayed()", build, takes=Request, gives=Request)


@dataclass(frozen=True, slots=True)
class Resent:
    """A recorded exchange, and how it went this time."""

    before: Recorded
    status: int
    """0 where there was no response."""
    size: int
    """Bytes of the body, as they came."""
    error: str = ""


async def resend(source: Source, to: Exchange) -> AsyncIterator[Resent]:
    """Send what was recorded again, one request after another: client replay, by `http.client()` for one.

    `stack(mitm.record("again.har"), http.client())` records what comes of it.
    """
    if not callable(to):
        raise ConfigError("mitm.resend(to=): expected an exchange")
    for each in load(source):
        if each.method == "CONNECT" or each.messages:
            continue
        yield await _resent(each, to)


async def _resent(before: Recorded, to: Exchange) -> Resent:
    headers = before.headers.copy()
    headers.discard(*_FRAMING)
    if not before.body.encoded:
        headers.discard("content-encoding")
    request = Request(before.method, before.url, headers, _body(before.body))
    try:
        response = await to(request)
    except (LlamaError, OSError) as error:
        return Resent(before, 0, 0, str(error) or type(error).__name__)
    size = 0
    try:
        async for chunk in response.body:
            size += len(chunk)
    except (LlamaError, OSError) as error:
        return Resent(before, response.status, size, str(error))
    finally:
        await response.aclose()
    return Resent(before, response.status, size)
