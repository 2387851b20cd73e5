"""The layer of a cassette, and the connector that blocks network access during a replay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from llama._core.errors import Unreachable
from llama._core.service import Middleware
from llama._core.stack import named_layer
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.http import Exchange, Request, Response
from llama.http._messages.origin import origin_of
from llama.mitm import Recorded, record
from llama.mitm._replay.replay import answer
from llama.mitm._replay.websocket import is_websocket, spoken_again
from llama.tcp import connect as tcp_connect
from llama.testing._fixtures.cassette import Cassette


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Taping:
    """Answers requests from a cassette, or records them."""

    inner: Exchange
    recorder: Exchange
    cassette: Cassette

    __takes__: ClassVar[type] = Request

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
        found = cassette.find(asked)
        if found is not None:
            return await self._replay(request, asked, found)
        if cassette.records:
            return await self.recorder(request)
        told = cassette.miss(asked)
        return Response(502, {"Content-Type": "text/plain; charset=utf-8"}, f"{told}\n")

    async def _replay(self, request: Request, asked: Recorded, found: Recorded) -> Response:
        if not request.protocol or not is_websocket(found):
            return answer(found)
        cassette = self.cassette
        speaks = spoken_again(found, cassette.redaction.clean_message, partial(cassette.unexpected, asked))
        return await speaks(request)


def taping(cassette: Cassette) -> Middleware[Request, Response]:
    """Return the layer of a cassette."""
    most = cassette.options.most

    def build(inner: Exchange) -> Exchange:
        recorder = record(cassette.keep, inline=most, most=most)(inner)
        return Taping(inner, recorder, cassette)

    return named_layer("cassette", build, takes=Request, gives=Request)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Offline:
    """Connects to ignored hosts; during a replay, to no other host."""

    inner: Connector
    cassette: Cassette

    __takes__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "offline"

    async def __call__(self, target: Target, /) -> Stream:
        cassette = self.cassette
        if cassette.records or cassette.ignores(target.host, target.port):
            return await self.inner(target)
        cassette.dialled(str(target))
        raise Unreachable(f"{cassette!r} is replayed: nothing reaches {target}")


def offline(cassette: Cassette, connect: Connector | None) -> Connector:
    """Return the connector of a cassette's proxy."""
    return Offline(connect or tcp_connect(), cassette)
