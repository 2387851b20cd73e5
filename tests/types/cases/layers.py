"""Stacks of generic layers and TCP middleware, good and bad. Read by the type checkers only."""

from llama import (
    Bridge,
    ConnectionHandler,
    Connector,
    PeerAddress,
    Predicate,
    Relay,
    Stream,
    Target,
    close,
    concurrency_limit,
    rate_limit,
    retry,
    route,
    stack,
    tcp,
    timeout,
    trace,
)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def drop(bridge: Bridge) -> None:
    await bridge.client.aclose()


def host(stream: Stream) -> str:
    return stream.extensions[PeerAddress].host


@Predicate
def is_local(stream: Stream) -> bool:
    return host(stream) == "127.0.0.1"


@Predicate
def is_secure(target: Target) -> bool:
    return target.port == 443


def is_odd(target: Target) -> bool:
    return target.port % 2 == 1


def good() -> None:
    handler: ConnectionHandler = stack(
        timeout(5), concurrency_limit(9, queue=3), rate_limit(5, key=host), trace("echo"), echo
    )
    handler = stack(
        tcp.connection_limit(9), tcp.count(tcp.TrafficCounter()), timeout(5), tcp.idle_timeout(3), handler
    )
    handler = route((is_local, handler), (~is_local & is_local, close()), default=close())
    handler = stack(tcp.proxy_protocol(trust=["unix"]), tcp.allow("::1"), handler)
    connector: Connector = stack(timeout(5), retry(3), rate_limit(9), tcp.connect())
    connector = route((is_secure & is_odd, connector), (is_odd | is_secure, connector), default=tcp.connect())
    connector = tcp.send_proxy(connect=stack(concurrency_limit(5), connector))
    relay: Relay = stack(timeout(60), trace("relay"), drop)
    _ = handler, connector, relay


def bad() -> None:
    handler: ConnectionHandler
    handler = route((is_local, echo))  # expect: error
    handler = stack(timeout(5), concurrency_limit(9), tcp.connect())  # expect: error
    handler = stack(timeout, echo)  # expect: error
    handler = stack(timeout(5), tcp.connection_limit(9), drop)  # expect: error
    handler = stack(tcp.idle_timeout(5), tcp.connect())  # expect: error
    handler = tcp.allow("::1")  # expect: error
    handler = route((is_local, echo), default=tcp.connect())  # expect: error
    handler = route((is_secure, echo), default=close())  # expect: error
    connector: Connector
    connector = stack(rate_limit(5, key=host), tcp.connect())  # expect: error
    connector = stack(retry(3), echo)  # expect: error
    connector = stack(retry(on="x"), tcp.connect())  # expect: error
    connector = tcp.send_proxy(connect=echo)  # expect: error
    connector = tcp.send_proxy(version=3)  # expect: error
    _ = handler, connector
    _ = is_local & is_odd  # expect: error
    _ = is_secure | is_local  # expect: error
