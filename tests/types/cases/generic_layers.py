"""Layers for any kind of service, good and bad. Read by the type checkers only."""

from typing import assert_type

from llama import (
    ConnectionHandler,
    Connector,
    LlamaError,
    PeerAddress,
    Service,
    Stream,
    Target,
    close,
    concurrency_limit,
    rate_limit,
    retry,
    route,
    serve,
    stack,
    tcp,
    timeout,
    tls,
    trace,
)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def double(number: int) -> str:
    return str(2 * number)


def from_inside(stream: Stream) -> bool:
    return stream.extensions[PeerAddress].host.startswith("10.")


def by_peer(stream: Stream) -> str:
    return stream.extensions[PeerAddress].host


async def good() -> None:
    assert_type(stack(timeout(5), double), Service[int, str])
    assert_type(
        stack(trace("t"), concurrency_limit(10, queue=5), retry(3), timeout(None), double), Service[int, str]
    )
    handler: ConnectionHandler = stack(
        trace("t"),
        tcp.connection_limit(10_000),
        tcp.allow("10.0.0.0/8"),
        tcp.idle_timeout(300),
        timeout(60),
        tls.server("a.pem"),
        concurrency_limit(100),
        trace("t"),
        tcp.forward("127.0.0.1:8080", connect=stack(retry(2), timeout(3), tcp.connect())),
    )
    handler = stack(rate_limit(5), echo)
    handler = stack(rate_limit(5, key=by_peer), echo)
    handler = stack(tls.server("a.pem"), rate_limit(5), echo)
    handler = stack(rate_limit(5), tls.server("a.pem"), echo)
    handler = stack(rate_limit(5), concurrency_limit(3), echo)
    handler = stack(concurrency_limit(3), rate_limit(5), echo)
    handler = stack(concurrency_limit(3), rate_limit(5, key=by_peer), echo)
    handler = stack(rate_limit(5), rate_limit(5), echo)
    handler = stack(rate_limit(5, key=by_peer), concurrency_limit(5), echo)
    handler = stack(rate_limit(5, key=by_peer), tls.server("a.pem"), echo)
    handler = stack(tls.server("a.pem"), rate_limit(5, key=by_peer), echo)
    handler = stack(tls.server("a.pem"), rate_limit(5, key=by_peer), timeout(5), echo)
    handler = stack(timeout(5), tls.server("a.pem"), rate_limit(5, key=by_peer), timeout(5), echo)
    handler = stack(trace("t"), timeout(9), route((from_inside, handler), default=close()))
    handler = timeout(5)(concurrency_limit(3)(echo))
    connector: Connector = stack(
        trace("t"), timeout(5), retry(on=LlamaError), concurrency_limit(9), tls.connect(connect=tcp.connect())
    )
    await connector(Target("a.example", 443))
    async with (
        serve(stack(timeout(5), concurrency_limit(9), echo), listen="127.0.0.1:0"),
        serve(tcp.server(":0", handler)),
    ):
        pass


@timeout(5)
@concurrency_limit(3)
async def decorated(number: int) -> str:
    return str(number)


def bad() -> None:
    assert_type(decorated, Service[int, str])
    handler: ConnectionHandler
    handler = stack(timeout(5), double)  # expect: error
    handler = stack(timeout, echo)  # expect: error
    handler = stack(trace("t"), timeout(5))  # expect: error
    handler = stack(
        trace("t"), timeout(5), tls.server("a.pem"), concurrency_limit(3), double
    )  # expect: error
    handler = stack(trace("t"), tls.server("a.pem"), retry(3), tcp.connect())  # expect: error
    handler = stack(rate_limit(5, key=by_peer), double)  # expect: error
    handler = route((from_inside, double), default=close())  # expect: error
    handler = timeout("5")(echo)  # expect: error
    connector: Connector = stack(timeout(5), tcp.idle_timeout(3), tcp.connect())  # expect: error
    connector = stack(timeout(5), close())  # expect: error
    numbers: Service[int, str] = stack(concurrency_limit(3), echo)  # expect: error
    numbers = stack(tcp.connection_limit(3), double)  # expect: error
    _ = handler, connector, numbers
