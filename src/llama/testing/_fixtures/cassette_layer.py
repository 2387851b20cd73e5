"""The layer of a cassette, and the connector that blocks network access during a replay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from llama._core.errors import UnreachableError
from llama._core.service import Middleware
from llama._core.stack import named_layer
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.http import Request, RequestHandler, Response
from llama.http._messages.origin import origin_of
from llama.mitm import Recorded, record
from llama.mitm._replay.replay import answer, answer_interleaved
from llama.mitm._replay.websocket import is_websocket, replay_websocket
from llama.tcp import connect as tcp_connect
from llama.testing._fixtures.cassette import Cassette


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class CassetteLayer:
    """Answers requests from a cassette, or records them."""

    inner: RequestHandler
    recorder: RequestHandler
    cassette: Cassette

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "cassette"

    async def __call__(self, request: Request, /) -> Response:
        cassette = self.cassette
        target = origin_of(request.scheme or "http", request.authority).target
        if cassette.ignores(target.host, target.port):
            return await self.inner(request)
        if not cassette.replays:
            return await self.recorder(request)
        asked = await cassette.read(request)
        if request.body.buffered is None and cassette.streams(asked):
            found, data = await cassette.find_stream(request, asked)
        else:
            found, data = cassette.find(asked), b""
        if found is not None:
            return await self._replay(request, asked, found, data)
        if cassette.records:
            return await self.recorder(request)
        told = cassette.record_miss(asked)
        return Response(502, {"Content-Type": "text/plain; charset=utf-8"}, f"{told}\n")

    async def _replay(self, request: Request, asked: Recorded, found: Recorded, data: bytes) -> Response:
        cassette = self.cassette
        if not request.upgrade_protocol or not is_websocket(found):
            if found.interleaving and request.body.buffered is None:
                return await answer_interleaved(
                    request, found, data, compare="body" in cassette.options.match
                )
            return answer(found, cassette.length_of_head(found), partial_body=True)
        speaks = replay_websocket(
            found, cassette.redaction.clean_message, partial(cassette.unexpected, asked)
        )
        return await speaks(request)


def cassette_layer(cassette: Cassette) -> Middleware[Request, Response]:
    """Return the layer of a cassette."""
    most = cassette.options.max_body

    def build(inner: RequestHandler) -> RequestHandler:
        recorder = record(cassette.keep, memory_limit=most, max_body=most)(inner)
        return CassetteLayer(inner, recorder, cassette)

    return named_layer("cassette", build, input_type=Request, inner_type=Request)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class NoNetwork:
    """Connects to ignored hosts; during a replay, to no other host."""

    inner: Connector
    cassette: Cassette

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "offline"

    async def __call__(self, target: Target, /) -> Stream:
        cassette = self.cassette
        if cassette.records or cassette.ignores(target.host, target.port):
            return await self.inner(target)
        cassette.dialled(str(target))
        raise UnreachableError(f"{cassette!r} is replayed: nothing reaches {target}")


def offline(cassette: Cassette, connect: Connector | None) -> Connector:
    """Return the connector of a cassette's proxy."""
    return NoNetwork(connect or tcp_connect(), cassette)
