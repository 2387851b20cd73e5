"""Replay of what was recorded: as a server, or as a client."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, TypeAlias

from llama._core.errors import ConfigError, LlamaError, RefusedError, TooLargeError, TruncatedError
from llama._core.service import Middleware
from llama._core.stack import check_accepts, layer_factory, named_layer
from llama.http import Body, Headers, Request, RequestHandler, Response
from llama.http._messages.body import StreamBody, to_body
from llama.http._proxy.hop_by_hop import HOP_BY_HOP
from llama.mitm._har.document import read_har
from llama.mitm._layers.synthetic import mark_synthetic
from llama.mitm._layers.url_prefix import normal
from llama.mitm._recording.exchange_recorder import BodyStore, whole
from llama.mitm._records import Recorded
from llama.mitm._replay.bodies import InterleavedBody, RequestProgress, can_continue, replayed_body
from llama.mitm._replay.websocket import is_websocket, replay_websocket

log = logging.getLogger("llama.mitm")
Source: TypeAlias = str | os.PathLike[str] | Iterable[Recorded]
_WEBSOCKET = "websocket"  # in the place of a method
_FRAMING = ("content-length", *HOP_BY_HOP)


def load(source: Source) -> list[Recorded]:
    """The exchanges of a HAR file, or those that are given."""
    return read_har(Path(source)) if isinstance(source, str | os.PathLike) else list(source)


def answer(recorded: Recorded, head: Recorded | None = None, *, partial_body: bool = False) -> Response:
    """The response of a recorded exchange; `head` is the exchange whose length a response to HEAD has.

    Raises LlamaError with the recorded status for an exchange that failed, RefusedError (502) for a response of
    which bytes are missing. With `partial_body` one that broke off breaks off at the same byte again.
    """
    broken = partial_body and not recorded.response_body.complete
    headers = _checked_headers(recorded, partial_body=broken)
    body = replayed_body(recorded.response_body, headers)
    if broken:
        body = StreamBody(_broken_off(to_body(body), recorded.url))
    response = Response(recorded.status, headers, body)
    response.reason = recorded.reason
    response.trailers = recorded.response_body.trailers
    if response.trailers and isinstance(body, bytes) and body:
        response.replace_body(StreamBody([body]))  # without a length: trailers follow in HTTP/1.1 too
    if recorded.method == "HEAD" and "content-length" in recorded.response_headers:
        length: int | str | None = recorded.response_headers["content-length"]
        if head is not None and "content-encoding" in headers:
            again = replayed_body(head.response_body, head.response_headers.copy())
            length = len(again) if isinstance(again, bytes) else again.length
        if length is not None:
            response.headers["Content-Length"] = str(length)
    return response


async def _broken_off(body: Body, url: str) -> AsyncIterator[bytes]:
    async for chunk in body:
        yield chunk
    raise TruncatedError(f"the recorded response of {url} broke off here")


def _checked_headers(recorded: Recorded, *, partial_body: bool = False) -> Headers:
    if recorded.failed:
        raise LlamaError(recorded.error, status=recorded.status)
    body = recorded.response_body
    if not partial_body and (body.truncated or not body.complete):
        what = f"the recorded response to {recorded.method} {recorded.url}"
        raise RefusedError(f"{what} is incomplete: it was truncated or broke off", status=502)
    headers = recorded.response_headers.copy()
    headers.discard(*_FRAMING)
    return headers


async def answer_interleaved(
    request: Request, recorded: Recorded, data: bytes, *, compare: bool = True
) -> Response:
    """The response of an exchange whose response began before its request ended; `data` was read already."""
    headers = _checked_headers(recorded)
    expected = recorded.body if compare and "content-encoding" not in recorded.headers else None
    label = f"{recorded.method} {recorded.url}"
    progress = RequestProgress(request.body, data, expected, label)
    await progress.reach(recorded.interleaving[0][1])
    if not recorded.response_body.encoded:
        headers.discard("content-encoding")
    body = InterleavedBody(recorded.response_body, recorded.interleaving, progress)
    response = Response(recorded.status, headers, body)
    response.reason = recorded.reason
    return response


@dataclass(slots=True)
class _ReplayQueue:
    """The recorded answers to one request, in order."""

    answers: list[Recorded] = field(default_factory=list[Recorded])
    next: int = 0

    def is_used_up(self) -> bool:
        """Whether each answer was replayed."""
        return self.next >= len(self.answers)

    def peek(self) -> Recorded:
        """The next one, or the last one."""
        return self.answers[min(self.next, len(self.answers) - 1)]

    def take(self, *, repeat: bool) -> Recorded | None:
        """The next one; after the last one the last again with `repeat`, else None."""
        if self.is_used_up() and not repeat:
            return None
        taken = self.peek()
        self.next += 1
        return taken


_Tape: TypeAlias = dict[tuple[str, str], dict[bytes, _ReplayQueue]]
"""By method and URL, then by the digest of the request's body."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Replay:
    """Answers what was recorded."""

    tape: _Tape
    otherwise: RequestHandler | None
    most: int
    repeat: bool = True

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        count = sum(len(each.answers) for queues in self.tape.values() for each in queues.values())
        return f"mitm.replay_server({count} exchanges)"

    async def __call__(self, request: Request, /) -> Response:
        url = normal(request.scheme or "http", request.authority, request.path)
        if "websocket" in request.upgrade_protocol.split(", ") and (
            known := self.tape.get((_WEBSOCKET, url))
        ):
            taken = known[b""].take(repeat=self.repeat)
            if taken is not None and taken.dropped_messages:
                lost = f"{taken.dropped_messages} messages of it were not kept"
                raise RefusedError(f"the recorded WebSocket {url} is incomplete: {lost}", status=502)
            if taken is not None:
                return mark_synthetic(await replay_websocket(taken, _as_it_is, _note)(request), "replayed")
            return await self._miss(request, url, known[b""])
        queues = self.tape.get((request.method, url))
        if queues is None:
            return await self._miss(request, url, None)
        queue, data = await self._find(request, queues)
        taken = queue.take(repeat=self.repeat) if queue is not None else None
        if taken is None:
            return await self._miss(request, url, queue)
        if taken.interleaving:
            response = await answer_interleaved(request, taken, data)
        else:
            response = answer(taken, self._length_of_head(taken, url))
        return mark_synthetic(response, "replayed")

    def _length_of_head(self, taken: Recorded, url: str) -> Recorded | None:
        """The exchange by GET whose length a response to HEAD has."""
        gets = self.tape.get(("GET", url), {}) if taken.method == "HEAD" else {}
        queue = gets.get(b"")
        return None if queue is None else queue.answers[0]

    async def _find(
        self, request: Request, queues: dict[bytes, _ReplayQueue]
    ) -> tuple[_ReplayQueue | None, bytes]:
        """The answers to a request, and what was read of its body."""
        if request.body.length == 0:
            return queues.get(b""), b""
        if any(each.interleaving for queue in queues.values() for each in queue.answers):
            heads = {id(each.peek()): each for each in sorted(queues.values(), key=_ReplayQueue.is_used_up)}
            found, data = await find_by_prefix(request, [each.peek() for each in heads.values()], self.most)
            return (None if found is None else heads[id(found)]), data
        data = await request.body.read(self.most)
        request.body = data
        plain = decoded(request, data, self.most)
        queue = queues.get(_digest(plain))
        if queue is not None:
            return queue, data
        for each in queues.values():
            first = each.answers[0]
            if (first.body.complete and not first.body.truncated) or not can_continue(first.body, plain):
                continue
            if first.failed:  # the upstream took no more of it
                return each, data
            raise RefusedError(f"the recorded body of {first.method} {first.url} is incomplete", status=502)
        return None, data

    async def _miss(self, request: Request, url: str, used: _ReplayQueue | None) -> Response:
        if self.otherwise is not None:
            return await self.otherwise(request)
        what = f"{request.method} {url}"
        if used is not None:
            raise RefusedError(
                f"{what} was recorded {len(used.answers)} times and replayed as often already", status=502
            )
        data = request.body.buffered
        with_body = f" with a body of {len(data)} bytes" if data else ""
        raise RefusedError(f"nothing was recorded for {what}{with_body}", status=502)


async def find_by_prefix(
    request: Request, candidates: list[Recorded], most: int
) -> tuple[Recorded | None, bytes]:
    """The first exchange that a request can be, and the data of its body that it took to find that out.

    It reads no further than to the first byte of a response that is due, since the client may wait for that.
    """
    data, source = b"", request.body
    while len(candidates) > 1 or (candidates and not candidates[0].interleaving):
        due = [each for each in candidates if 0 <= _needed(each) <= len(data)]
        if due:
            return due[0], data
        chunk = await source.read_chunk()
        data += chunk
        if len(data) > most:
            raise TooLargeError(f"the body is over the limit of {most} bytes")
        if not chunk:
            request.body = data
            plain = decoded(request, data, most)
            return next((each for each in candidates if each.body.read() == plain), None), data
        if "content-encoding" not in request.headers:
            candidates = [each for each in candidates if can_continue(each.body, data)]
    if not candidates:
        request.body = StreamBody(_joined(data, source))
    return (candidates[0] if candidates else None), data


def _needed(recorded: Recorded) -> int:
    """The request bytes before the first byte of the response; -1 for all of them."""
    return [passed for sent, passed in recorded.interleaving if not sent][-1] if recorded.interleaving else -1


async def _joined(data: bytes, rest: Body) -> AsyncIterator[bytes]:
    if data:
        yield data
    while chunk := await rest.read_chunk():
        yield chunk


def decoded(request: Request, data: bytes, most: int) -> bytes:
    """A request's body as it would be recorded."""
    return whole(BodyStore(most, None, None).sink(request.headers), data).read()


def _as_it_is(data: str | bytes) -> str | bytes:
    return data


def _note(said: str | bytes, expected: str | bytes | None) -> None:
    log.warning("a replayed WebSocket's client says %.100r, where it had said %.100r", said, expected)


def _digest(data: bytes) -> bytes:
    return sha256(data).digest() if data else b""


def _tape(exchanges: Iterable[Recorded]) -> _Tape:
    tape: _Tape = {}
    for each in exchanges:
        request = Request(each.method, each.url)
        method, url, digest = each.method, normal(request.scheme, request.authority, request.path), b""
        if is_websocket(each):
            method, url = _WEBSOCKET, f"http{url[2:]}" if url.startswith("ws") else url
        elif each.status < 200:  # there was no answer, or it was an upgrade to something else
            continue
        else:
            digest = _digest(each.body.read())
        tape.setdefault((method, url), {}).setdefault(digest, _ReplayQueue()).answers.append(each)
    return tape


@layer_factory("mitm.replay_server", "service")
def replay_server(
    source: Source, *, otherwise: RequestHandler | None = None, repeat: bool = True, max_body: int = 16 << 20
) -> RequestHandler:
    """Answer as was recorded: server replay, from a HAR file or from exchanges.

    A request matches by method, URL and body, content coding removed (of at most `max_body` bytes). Several answers
    to the same request are replayed in order; after that the last one repeats, or without `repeat` nothing matches.
    Responses have the recorded Content-Encoding and trailers, and a failed exchange its status. One that began
    before its request had ended (gRPC streams in both directions) goes on as the request does. An incomplete
    recording of a response is answered with 502. On a WebSocket the server's part comes as the
    client says its own; where it says something else it is closed with 1008. What is not known goes to `otherwise`,
    or is RefusedError (502). Raises ConfigError for what is no HAR file.

        run(stack(http.server(), mitm.replay_server("out.har")), listen="127.0.0.1:8080")
    """
    if otherwise is not None:
        check_accepts(otherwise, Request, "mitm.replay_server(otherwise=)")
    return Replay(_tape(load(source)), otherwise, max_body, repeat)


@layer_factory("mitm.replay_layer")
def replay_layer(
    source: Source, *, strict: bool = False, repeat: bool | None = None, most: int = 16 << 20
) -> Middleware[Request, Response]:
    """The same as a layer: what is not known goes on to the upstream, or with `strict` is RefusedError (502).

    `repeat` replays the last answer to a request again; by default without `strict` only.
    """
    tape = _tape(load(source))
    repeats = not strict if repeat is None else repeat

    def build(inner: RequestHandler) -> RequestHandler:
        return Replay(tape, None if strict else inner, most, repeats)

    return named_layer("mitm.replay_layer()", build, input_type=Request, inner_type=Request)


@dataclass(frozen=True, slots=True)
class ResendResult:
    """A recorded exchange, and how it went this time."""

    before: Recorded
    status: int
    """0 where there was no response."""
    size: int
    """Bytes of the body, as they came."""
    error: str = ""


async def replay_client(source: Source, to: RequestHandler) -> AsyncIterator[ResendResult]:
    """Send what was recorded again, one request after another: client replay, by `http.client()` for one.

    `stack(mitm.record("again.har"), http.client())` records what comes of it.
    """
    if not callable(to):
        raise ConfigError("mitm.replay_client(to=): expected an exchange")
    for each in load(source):
        if each.method == "CONNECT" or each.messages:
            continue
        yield await _resent(each, to)


async def _resent(before: Recorded, to: RequestHandler) -> ResendResult:
    headers = before.headers.copy()
    headers.discard(*_FRAMING)
    body = replayed_body(before.body, headers)
    request = Request(before.method, before.url, headers, body)
    request.trailers = before.body.trailers
    try:
        response = await to(request)
    except (LlamaError, OSError) as error:
        return ResendResult(before, 0, 0, str(error) or type(error).__name__)
    size = 0
    try:
        async for chunk in response.body:
            size += len(chunk)
    except (LlamaError, OSError) as error:
        return ResendResult(before, response.status, size, str(error))
    finally:
        await response.aclose()
    return ResendResult(before, response.status, size)
