"""Every kind of front door that interception goes behind."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from unittest import mock

from llama import (
    ConnectionHandler,
    Connector,
    Relay,
    Stream,
    Target,
    http,
    mitm,
    serve,
    socks5,
    stack,
    tcp,
    tls,
)
from llama.http import RequestHandler
from llama.tls import TLSParams
from tests.mitm.worlds import HOST, To, World

DOORS = ("http", "connect", "socks5", "late socks5", "forward", "late forward", "transparent", "sni")
LED = ("forward", "late forward", "transparent", "sni")
"""Those whose clients do not know that there is one."""
PROCESS = mitm.Process(7, "browser", "/usr/bin/browser")


def _handler(kind: str, world: World, to: To, *layers: object, **options: object) -> ConnectionHandler:
    relay: Relay = mitm.relay(world.ca, *layers, **options)  # type: ignore[arg-type]
    target = f"{HOST}:443"
    match kind:
        case "http":
            return stack(http.server(), mitm.proxy(world.ca, *layers, connect=to, **options))  # type: ignore[arg-type]
        case "connect":
            return stack(http.server(), http.proxy(connect=to, relay=relay))
        case "socks5":
            return socks5.server(connect=to, relay=relay)
        case "late socks5":
            return socks5.server(connect=mitm.lazy_connect(to), relay=relay)
        case "forward":
            return tcp.forward(target, connect=to, relay=relay)
        case "late forward":
            return tcp.forward(target, connect=mitm.lazy_connect(to), relay=relay)
        case "transparent":
            return tcp.transparent(connect=to, relay=relay)
        case _:
            return tls.route({HOST: tcp.forward(target, connect=to, relay=relay)})


def _ask(sock: object) -> tuple[str, int]:
    """Stands for the kernel, which knows where a connection was led away from."""
    return "192.0.2.1", 443


def way(kind: str, port: int) -> Connector:
    """How a client goes through a front door."""
    if kind in LED:
        return To(port)
    address = f"127.0.0.1:{port}"
    return http.connect(address) if kind in ("http", "connect") else socks5.connect(address)


@asynccontextmanager
async def entered(
    kind: str, world: World, to: int | To, *layers: object, **options: object
) -> AsyncGenerator[int]:
    """The port of a front door whose targets all are one port of this machine."""
    options.setdefault("verify", world.site_pem)
    to = To(to) if isinstance(to, int) else to
    door = _handler(kind, world, to, *layers, **options)

    async def known(stream: Stream) -> None:
        """Whatever finds out of which process a connection comes."""
        stream.extensions.set(PROCESS)
        await door(stream)

    with mock.patch("llama.tcp._transparent._query_original_dst", _ask):
        async with serve(known, listen="127.0.0.1:0") as front:
            yield front.port


@asynccontextmanager
async def through(
    kind: str,
    world: World,
    upstream: ConnectionHandler,
    *layers: object,
    alpn: tuple[str, ...] = ("h2", "http/1.1"),
    trust: object = None,
    **options: object,
) -> AsyncGenerator[RequestHandler]:
    """A client that goes to an upstream through a front door; it trusts the proxy's authority unless told."""
    async with (
        serve(upstream, listen="127.0.0.1:0") as served,
        entered(kind, world, served.port, *layers, **options) as port,
    ):
        over = way(kind, port)
        secure = tls.connect(over, **(trust or {"ca": world.pem}))  # type: ignore[arg-type]

        async def offering(target: Target) -> Stream:
            asked = target.extensions[TLSParams].alpn or ()
            wanted = target.fork(target.extensions)
            wanted.extensions.set(TLSParams(tuple(each for each in asked if each in alpn)))
            return await secure(wanted)

        async with http.client(over, tls=offering) as client:
            yield client
