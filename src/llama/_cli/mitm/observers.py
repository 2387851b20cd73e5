"""What sees what passes: layers around exchanges, relays and front doors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from llama import Bridge, ConnectionHandler, Middleware, RefusedError, Relay, Stream, TLSError, layer, tcp
from llama._cli.mitm.flow_summary import FlowSummary
from llama.http import Request, RequestHandler, Response
from llama.http._layers.byte_count import ByteCount
from llama.http._messages.body import TransformedBody
from llama.http._messages.error_response import status_of
from llama.http._messages.upgrade import UpgradedConnection

OnFlow: TypeAlias = Callable[[FlowSummary], object]


@dataclass(frozen=True, slots=True)
class Observers:
    """Layers that see what passes, and where they go."""

    exchanges: tuple[Middleware[Request, Response], ...] = ()
    """Around all other layers of exchanges."""
    passthroughs: tuple[Callable[[Relay], Relay], ...] = ()
    """Around what relays bytes."""
    front_doors: tuple[Middleware[Request, Response], ...] = ()
    """Around a forward proxy."""
    relays: tuple[Callable[[Relay], Relay], ...] = ()
    """Around the relay that looks inside, behind another front door."""

    @classmethod
    def to(cls, tell: OnFlow) -> Observers:
        """Tell of each."""
        return cls(
            (observe_exchanges(tell),),
            (observe_passthroughs(tell),),
            (observe_front_doors(tell),),
            (observe_relays(tell),),
        )

    def __add__(self, other: Observers) -> Observers:
        return Observers(
            self.exchanges + other.exchanges,
            self.passthroughs + other.passthroughs,
            self.front_doors + other.front_doors,
            self.relays + other.relays,
        )


def observe_exchanges(tell: OnFlow) -> Middleware[Request, Response]:
    """Tell of each exchange when it is over."""

    @layer
    async def watched(request: Request, inner: RequestHandler) -> Response:
        seen = FlowSummary(request.method, request.url)
        if (door := request.extensions.get(_ObservedDoor)) is not None:
            door.is_seen = True
        try:
            response = await inner(request)
        except BaseException as error:
            seen.status = status_of(error) if isinstance(error, Exception) else 499
            seen.error = str(error) or type(error).__name__
            seen.seconds = time.perf_counter() - seen.began
            tell(seen)
            raise
        seen.status = response.status
        count = _counted(response)

        def over() -> None:
            seen.seconds = time.perf_counter() - seen.began
            seen.size = response.body.length or 0 if count is None else count.bytes
            seen.error = "broken off" if count is not None and not count.ended else ""
            tell(seen)

        response.on_close(over)
        return response

    return watched


def _counted(response: Response) -> ByteCount | None:
    """What counts the body; None where that is not needed."""
    body = response.body
    if body.buffered is not None or response.upgrade is not None:
        return None
    count = ByteCount()
    response.replace_body(TransformedBody(body, count))
    return count


def observe_passthroughs(tell: OnFlow) -> Callable[[Relay], Relay]:
    """Tell of each connection that is relayed as bytes when it is over."""

    @layer
    async def watched(bridge: Bridge, inner: Relay) -> None:
        seen = FlowSummary("PASS", str(bridge.target))
        try:
            await inner(bridge)
        except BaseException as error:
            seen.error = str(error) or type(error).__name__
            raise
        finally:
            moved = bridge.extensions.get(tcp.RelayStats) or tcp.RelayStats(0, 0)
            seen.size = sum(moved)
            seen.seconds = time.perf_counter() - seen.began
            tell(seen)

    return watched


@dataclass(slots=True)
class _ObservedDoor:
    """Whether what came in by a door became an exchange within."""

    is_seen: bool = False


def observe_front_doors(tell: OnFlow) -> Middleware[Request, Response]:
    """Around a forward proxy: tell of what never became an exchange within, such as what is blocked."""

    @layer
    async def door(request: Request, inner: RequestHandler) -> Response:
        here = _ObservedDoor()
        request.extensions.set(here)
        began = time.perf_counter()
        try:
            response = await inner(request)
        except Exception as error:
            if not here.is_seen:
                tell(_failed(request.method, request.url, began, error, status_of(error)))
            raise
        upgrade = response.upgrade
        if (
            upgrade is not None
            and request.method == "CONNECT"
            and not isinstance(upgrade, UpgradedConnection)
        ):
            response.upgrade = partial(_through, upgrade, tell, request.authority)
        return response

    return door


async def _through(upgrade: ConnectionHandler, tell: OnFlow, target: str, stream: Stream) -> None:
    began = time.perf_counter()
    try:
        await upgrade(stream)
    except Exception as error:
        _tell_of_early(tell, target, began, error)
        raise


def observe_relays(tell: OnFlow) -> Callable[[Relay], Relay]:
    """Around a relay that looks inside: tell of connections that end before anything is seen of them."""

    @layer
    async def relayed(bridge: Bridge, inner: Relay) -> None:
        began = time.perf_counter()
        try:
            await inner(bridge)
        except Exception as error:
            _tell_of_early(tell, str(bridge.target), began, error)
            raise

    return relayed


def _tell_of_early(tell: OnFlow, target: str, began: float, error: Exception) -> None:
    """What ends a connection before its first exchange; all else is seen of exchanges."""
    if isinstance(error, RefusedError | TLSError):
        tell(_failed("CONNECT", target, began, error))


def _failed(method: str, url: str, began: float, error: Exception, status: int = 0) -> FlowSummary:
    seen = FlowSummary(method, url, began=began, status=status, error=str(error) or type(error).__name__)
    seen.seconds = time.perf_counter() - began
    return seen
