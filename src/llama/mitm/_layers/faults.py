"""Fault injection: latency, errors, aborted responses and limited bandwidth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.errors import ConfigError, TruncatedError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http import Body, Headers, Request, RequestHandler, Response
from llama.mitm._layers.synthetic import mark_synthetic
from llama.mitm._layers.upgrades import throttle_upgrade, truncate_upgrade

Seconds: TypeAlias = float | tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Faults:
    """Injects faults into some exchanges."""

    inner: RequestHandler
    latency: tuple[float, float]
    errors: float
    status: int
    aborts: float
    after: int
    match: Callable[[Request], bool] | None
    chance: random.Random

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "mitm.faults()"

    async def __call__(self, request: Request, /) -> Response:
        if self.match is not None and not self.match(request):
            return await self.inner(request)
        wait = self.chance.uniform(*self.latency)
        fails, breaks = self.chance.random() < self.errors, self.chance.random() < self.aborts
        if wait:
            await asyncio.sleep(wait)
        if fails:
            text = f"{self.status}: injected fault\n"
            return mark_synthetic(Response(self.status, {"Content-Type": "text/plain"}, text), "fault")
        response = await self.inner(request)
        if breaks and response.upgrade is not None:
            truncate_upgrade(response, self.after)
        elif breaks:
            response.replace_body(TruncatedBody(response.body, self.after))
        return response


class TruncatedBody(Body):
    """A body that is aborted after `after` bytes, or at its end if it is shorter."""

    __slots__ = ("_left", "_source")

    def __init__(self, source: Body, after: int) -> None:
        super().__init__()
        self._source = source
        self._left = after

    async def read_chunk(self) -> bytes:
        data = await self._source.read_chunk() if self._left else b""
        if not data:
            raise TruncatedError("injected fault: the body was aborted")
        data = data[: self._left]
        self._left -= len(data)
        return data

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        await self._source.aclose()


@layer_factory("mitm.faults")
def faults(
    *,
    latency: Seconds = 0.0,
    errors: float = 0.0,
    status: int = 503,
    aborts: float = 0.0,
    after: int = 0,
    match: Callable[[Request], bool] | None = None,
    seed: int | None = None,
) -> Middleware[Request, Response]:
    """Inject faults into exchanges: all of them, or those for which `match` returns True.

    `latency` is the wait before each exchange in seconds, or a minimum and a maximum; `errors` the fraction
    (0 to 1) answered with `status` without the upstream; `aborts` the fraction whose response is aborted after
    `after` bytes of its body, or of the data of an upgrade such as a WebSocket. With a `seed` the choice is
    reproducible. Raises ConfigError for an invalid fraction, time, status or count.
    """
    span = latency if isinstance(latency, tuple) else (latency, latency)
    if not 0 <= span[0] <= span[1]:
        raise ConfigError(f"mitm.faults(latency={latency!r}): expected seconds, or a minimum and a maximum")
    for name, part in (("errors", errors), ("aborts", aborts)):
        if not 0 <= part <= 1:
            raise ConfigError(f"mitm.faults({name}={part}): expected a fraction from 0 to 1")
    if not 200 <= status <= 599 or after < 0:
        raise ConfigError(
            f"mitm.faults(status={status}, after={after}): expected a status from 200 to 599 and a number of bytes"
        )
    chance = random.Random(seed)

    def build(inner: RequestHandler) -> RequestHandler:
        return Faults(inner, span, errors, status, aborts, after, match, chance)

    return named_layer("mitm.faults()", build, input_type=Request, inner_type=Request)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Throttle:
    """Limits the bandwidth of bodies."""

    inner: RequestHandler
    download: float | None
    upload: float | None

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"mitm.throttle(download={self.download}, upload={self.upload})"

    async def __call__(self, request: Request, /) -> Response:
        if self.upload is not None and request.body.length != 0:
            request.replace_body(PacedBody(request.body, self.upload))
        response = await self.inner(request)
        if response.upgrade is not None:
            throttle_upgrade(response, self.download, self.upload)
        elif self.download is not None and response.body.length != 0:
            response.replace_body(PacedBody(response.body, self.download))
        return response


class PacedBody(Body):
    """A body limited to `pace` bytes per second."""

    __slots__ = ("_due", "_left", "_pacer", "_source")

    def __init__(self, source: Body, pace: float) -> None:
        super().__init__()
        self._source = source
        self._pacer = pace
        self._left = b""
        self._due: float | None = None

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    async def read_chunk(self) -> bytes:
        data = self._left or await self._source.read_chunk()
        if not data:
            self.ended = True
            return b""
        most = max(1, int(self._pacer / 10))
        data, self._left = data[:most], data[most:]
        now = asyncio.get_running_loop().time()
        due = now if self._due is None else max(self._due, now - 0.1)
        self._due = due + len(data) / self._pacer
        if self._due > now:
            await asyncio.sleep(self._due - now)
        return data

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        await self._source.aclose()


@layer_factory("mitm.throttle")
def throttle(*, download: float | None = None, upload: float | None = None) -> Middleware[Request, Response]:
    """Limit the bandwidth of each exchange in bytes per second: `download` for responses, `upload` for requests.

    The limits also apply to the data of an upgrade, such as a WebSocket. Raises ConfigError for 0 or less.
    """
    for name, pace in (("download", download), ("upload", upload)):
        if pace is not None and pace <= 0:
            raise ConfigError(f"mitm.throttle({name}={pace}): expected bytes per second, or None")

    def build(inner: RequestHandler) -> RequestHandler:
        return inner if download is None and upload is None else Throttle(inner, download, upload)

    return named_layer(
        f"mitm.throttle(download={download}, upload={upload})", build, input_type=Request, inner_type=Request
    )
