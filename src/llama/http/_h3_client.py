"""The HTTP/3 client: an exchange over QUIC connections that are kept and shared."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from qh3.quic.configuration import QuicConfiguration

from llama._errors import ConfigError, LlamaError, Overloaded, ProtocolError, Truncated, Unreachable
from llama._packets import PacketConnector
from llama._shutdown import Shutdown
from llama.http._alternatives import Alternatives
from llama.http._client import is_replayable
from llama.http._h1_client_upgrade import Upgraded
from llama.http._h3_channel import H3_REQUEST_CANCELLED, Channel, ChannelBody
from llama.http._h3_dial import Dialled
from llama.http._h3_fields import encode_request, encode_trailers, response_of
from llama.http._h3_link import Quic, new_configuration
from llama.http._h3_settings import H3ClientSettings
from llama.http._h3_tunnel import ChannelStream
from llama.http._message import Exchange, Request, Response
from llama.http._origin import Origin, origin_of

PER_ORIGIN = 4
WAITING = 1024


class Place:
    """One origin: its connections, who is connecting, and who waits for room."""

    __slots__ = ("connections", "dialling", "waiting")

    def __init__(self) -> None:
        self.connections: list[Dialled] = []
        self.dialling: asyncio.Task[Dialled] | None = None
        self.waiting: deque[asyncio.Future[None]] = deque()

    def wake(self) -> None:
        """There may be room: those who waited longest look first."""
        room = sum(each.room for each in self.connections)
        while self.waiting and (room > 0 or not self.connections):
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1


class State:
    """What a client has in the running loop."""

    def __init__(self) -> None:
        self.tasks = Shutdown()
        self.places: OrderedDict[str, Place] = OrderedDict()
        self.alternatives = Alternatives()
        self.entered = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """In this loop: whoever did not enter the client leaves closing it to the current Shutdown."""
        loop = asyncio.get_running_loop()
        if self.loop is loop:
            return
        self.loop = loop
        self.tasks, self.places = Shutdown(), OrderedDict()
        if not self.entered:
            try:
                Shutdown.current().on_close(self.close)
            except RuntimeError:  # run by hand: whoever does may enter the client
                pass

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(len(place.connections) for place in self.places.values())

    async def close(self) -> None:
        """Close all connections; the next request opens others."""
        self.loop = None
        for place in self.places.values():
            if place.dialling is not None:
                place.dialling.cancel()
            for each in tuple(place.connections):
                each.close()
        await self.tasks.drain(1.0)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class H3Client:
    """Sends requests over HTTP/3, or where a server was not heard to have it, by another exchange."""

    connect: PacketConnector
    fallback: Exchange | None
    configuration: QuicConfiguration
    settings: H3ClientSettings
    state: State = field(default_factory=State)

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.h3_client()"

    async def __aenter__(self) -> H3Client:
        self.state.entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.state.entered -= 1
        if not self.state.entered:
            await self.state.close()

    async def __call__(self, request: Request, /) -> Response:
        self.state.open()
        extensions = request._extensions
        origin = extensions.get(Origin) if extensions is not None else None
        origin = origin or origin_of(request.scheme or "https", request.authority)
        if self.fallback is None:
            if origin.scheme not in ("https", "h3"):
                raise ProtocolError(f"{origin} cannot be reached by HTTP/3")
            return await self._send(request, origin, origin)
        return await self._either(self.fallback, request, origin)

    # which way

    async def _either(self, fallback: Exchange, request: Request, origin: Origin) -> Response:
        known = self.state.alternatives
        other = known.get(origin) if origin.scheme == "https" else None
        if other is not None and not request.protocol and await self._is_reached(origin, other):
            return await self._send(request, origin, other)
        response = await fallback(request)
        if origin.scheme == "https" and "alt-svc" in response.headers.names:
            known.learn(origin, response.headers.get_all("alt-svc"))
        return response

    async def _is_reached(self, origin: Origin, other: Origin) -> bool:
        """Connect, if need be, for as long as the race allows; what comes later is used next time."""
        place = self._place(origin)
        if any(each.is_open for each in place.connections):
            return True
        dialling = self._dial(place, origin, other)
        done, _ = await asyncio.wait((dialling,), timeout=self.settings.race)
        if not done:
            return False
        if dialling.exception() is not None:
            self.state.alternatives.failed(origin)
            return False
        return True

    # connections

    def _place(self, origin: Origin) -> Place:
        places = self.state.places
        place = places.get(origin.key)
        if place is None:
            place = places[origin.key] = Place()
            self._forget_places()
        return place

    def _forget_places(self) -> None:
        places = self.state.places
        for key in list(places)[: max(0, len(places) - 1024)]:
            if not places[key].connections and places[key].dialling is None:
                del places[key]

    async def _connection(self, origin: Origin, other: Origin) -> Dialled:
        place = self._place(origin)
        while True:
            for each in place.connections:
                if each.room > 0:
                    return each
            if sum(each.is_open for each in place.connections) < PER_ORIGIN:
                await asyncio.shield(self._dial(place, origin, other))
            else:
                await self._wait(place, origin)

    async def _wait(self, place: Place, origin: Origin) -> None:
        if len(place.waiting) >= WAITING:
            raise Overloaded(f"{WAITING} requests wait for {origin} already")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place.waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if not future.done():
                place.waiting.remove(future)
            else:
                place.wake()
            raise

    def _dial(self, place: Place, origin: Origin, other: Origin) -> asyncio.Task[Dialled]:
        """One connects for all who wait; being cancelled ends nobody's wait but one's own."""
        if place.dialling is None:
            if self.state.connections >= self.settings.max_connections:
                raise Overloaded(f"{self.settings.max_connections} HTTP/3 connections are open already")
            place.dialling = self.state.tasks.spawn(self._open(place, origin, other))
            place.dialling.add_done_callback(lambda task: task.cancelled() or task.exception())
        return place.dialling

    async def _open(self, place: Place, origin: Origin, other: Origin) -> Dialled:
        dialled: Dialled | None = None
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                packets = await self.connect(other.target)
                quic = Quic(
                    configuration=dataclasses.replace(self.configuration, server_name=origin.target.host)
                )
                dialled = Dialled(packets, quic, origin)
                dialled.start(self.state.tasks)
                await asyncio.shield(dialled.link.established)
        except BaseException as error:
            if dialled is not None:
                dialled.close()
            if isinstance(error, TimeoutError):
                text = f"no HTTP/3 connection to {origin} within {self.settings.connect_timeout:g} s"
                raise Unreachable(text, status=504) from error
            if isinstance(error, OSError) and not isinstance(error, LlamaError):
                raise Unreachable(f"cannot reach {origin}: {error}") from error
            raise
        finally:
            place.dialling = None
        self._kept(place, dialled)
        return dialled

    def _kept(self, place: Place, dialled: Dialled) -> None:
        def gone(_: object) -> None:
            place.connections.remove(dialled)
            place.wake()

        place.connections.append(dialled)
        dialled.link.on_packets = place.wake
        dialled.link.closed.add_done_callback(gone)

    # requests

    async def _send(self, request: Request, origin: Origin, other: Origin) -> Response:
        for last in (False, True):
            dialled = await self._connection(origin, other)
            call = Call(dialled, self.settings, self.state.tasks)
            try:
                return await call.send(request)
            except (Truncated, ProtocolError, Unreachable):
                again = call.unprocessed and request._body.data is not None
                if last or not (again or (is_replayable(request) and not call.answered)):
                    raise
        raise AssertionError("the loop above returns or raises")


class Call:
    """One request on a connection, and its response."""

    def __init__(self, dialled: Dialled, settings: H3ClientSettings, tasks: Shutdown) -> None:
        self._dialled = dialled
        self._settings = settings
        self._tasks = tasks
        self._upload: asyncio.Task[None] | None = None
        self.answered = False
        """Whether a byte of the response has come."""
        self.unprocessed = False
        """Whether the server said that it has not looked at the request."""

    async def send(self, request: Request) -> Response:
        """Send it, and wait for the head of the response, whose body then owns the channel."""
        dialled = self._dialled
        channel = dialled.open()
        owner = Owned(dialled, channel)
        try:
            self._start(channel, request)
            async with asyncio.timeout(self._settings.head_timeout):
                response = await self._head(channel, request)
        except BaseException as error:
            goaway = dialled.link.goaway
            self.unprocessed = channel.rejected or (goaway is not None and channel.number >= goaway)
            owner.close(H3_REQUEST_CANCELLED)
            if isinstance(error, TimeoutError) and not isinstance(error, LlamaError):
                raise TimeoutError(
                    f"{dialled.origin}: no response within {self._settings.head_timeout} s"
                ) from None
            raise
        return self._answered(channel, owner, request, response)

    def _start(self, channel: Channel, request: Request) -> None:
        fields, length = encode_request(request, self._dialled.origin.authority)
        if not length:
            channel.send_fields(fields, end=request.method != "CONNECT")
            return
        channel.send_fields(fields)
        self._upload = self._tasks.spawn(self._send_body(channel, request))

    async def _send_body(self, channel: Channel, request: Request) -> None:
        try:
            while chunk := await request._body.chunk():
                await channel.send(chunk)
            trailers = request.trailers
            if trailers:
                channel.send_fields(encode_trailers(trailers), end=True)
            else:
                await channel.send(b"", end=True)
        except (LlamaError, OSError) as error:
            if channel.error is None and not channel.sent_end:
                channel.fail(error)
        finally:
            if not channel.sent_end:
                channel.abort(H3_REQUEST_CANCELLED)

    async def _head(self, channel: Channel, request: Request) -> Response:
        limits = self._settings.limits
        while True:
            while channel.informed:
                self.answered = True
                interim, _ = response_of(channel.informed.popleft(), limits)
                await request.inform(interim.status, interim.headers)
            if channel.fields is not None:
                self.answered = True
                response, channel.declared = response_of(channel.fields, limits)
                return response
            if channel.error is not None:
                raise channel.error
            if channel.ended:
                raise Truncated("the stream ended before its response")
            await channel.wait()

    def _answered(self, channel: Channel, owner: Owned, request: Request, response: Response) -> Response:
        if request.method == "CONNECT" and 200 <= response.status < 300:
            channel.declared = None
            stream = ChannelStream(channel)
            upgraded = Upgraded(
                stream, self._dialled.origin.target, gone=lambda: owner.close(H3_REQUEST_CANCELLED)
            )
            response.upgrade = upgraded
            response.on_close(upgraded.abort)
            return response
        if request.method == "HEAD" or response.status in (204, 304):
            channel.declared = None
        if channel.ended and not channel.unread:
            owner.close(H3_REQUEST_CANCELLED)
            return response
        response._body = ChannelBody(channel, self._settings.body_timeout, owner)
        upload = self._upload
        if upload is not None:
            response.on_close(upload.cancel)
        return response


class Owned:
    """A channel that is given back once."""

    __slots__ = ("_channel", "_dialled")

    def __init__(self, dialled: Dialled, channel: Channel) -> None:
        self._dialled: Dialled | None = dialled
        self._channel = channel

    def close(self, code: int) -> None:
        """The exchange is over: what has not ended is broken off with this code. Again does nothing."""
        dialled, self._dialled = self._dialled, None
        if dialled is not None:
            self._channel.close(code)


def build_client(
    connect: PacketConnector,
    fallback: Exchange | None,
    ca: str | os.PathLike[str] | None,
    settings: H3ClientSettings,
) -> H3Client:
    """A client; ConfigError for authorities that cannot be read."""
    configuration = new_configuration(is_client=True, idle_timeout=settings.idle_timeout)
    if not settings.verify:
        configuration.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        try:
            configuration.cadata = Path(ca).read_bytes()
        except OSError as error:
            raise ConfigError(f"http.h3_client(ca={ca}): {error.strerror}") from error
    return H3Client(connect, fallback, configuration, settings)
