"""Stacks over TCP and TLS, good and bad. Read by the type checkers only."""

from typing import assert_type

from llama import (
    Bridge,
    ConnectionHandler,
    Connector,
    Relay,
    Stream,
    Target,
    layer,
    serve,
    stack,
    tcp,
    tls,
    unix,
)


@layer
async def watch(stream: Stream, inner: ConnectionHandler) -> None:
    await inner(stream)


@layer
async def log(target: Target, inner: Connector) -> Stream:
    return await inner(target)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def drop(bridge: Bridge) -> None:
    await bridge.client.aclose()


async def good() -> None:
    terminate: ConnectionHandler = stack(tls.server("a.pem", "a.key"), tcp.forward("127.0.0.1:8080"))
    terminate = stack(watch, tls.deny("0" * 32), tls.server(tls.Certificate("a.pem", "a.key")), watch, echo)
    routed: ConnectionHandler = tls.route(
        {"a.example": tcp.forward("127.0.0.1:8443"), "*.b.example": terminate}, default=echo
    )
    routed = stack(tls.require_sni(), tls.route(default=stack(tls.server("a.pem"), tls.route(default=echo))))
    routed = tcp.route((b"SSH-", echo), (lambda data: len(data) > 9 or None, echo), tls=routed, default=echo)
    assert_type(tls.server("a.pem")(echo), ConnectionHandler)
    connector: Connector = tls.connect(connect=tls.connect(connect=tcp.connect()))
    connector = stack(log, tls.connect(unix.connect("socket"), insecure=True))
    chained: ConnectionHandler = tcp.forward("a.example:443", connect=connector, relay=tcp.relay())
    relay: Relay = drop
    chained = tcp.forward(Target("a.example", 443), connect=stack(log, log, tcp.connect()), relay=relay)
    async with serve(tcp.server(":8443", routed), tcp.server(":8080", chained)):
        pass


async def bad() -> None:
    handler: ConnectionHandler
    handler = tls.connect()  # expect: error
    handler = tls.server("a.pem")  # expect: error
    handler = stack(tls.server, echo)  # expect: error
    handler = stack(tls.server("a.pem"), tcp.connect())  # expect: error
    handler = stack(tls.server("a.pem"), drop)  # expect: error
    handler = stack(log, echo)  # expect: error
    handler = tls.route({"a.example": tcp.connect()})  # expect: error
    handler = tls.route({"a.example": tls.server("a.pem")})  # expect: error
    handler = tls.route(default=drop)  # expect: error
    handler = tcp.route(("SSH-", echo))  # expect: error
    handler = tcp.route(tls=tls.server("a.pem"))  # expect: error
    handler = tcp.forward("a.example:443", connect=stack(tls.server("a.pem"), echo))  # expect: error
    handler = tcp.forward("a.example:443", relay=echo)  # expect: error
    connector: Connector = tls.connect(connect=echo)  # expect: error
    connector = stack(log, tls.connect)  # expect: error
    connector = stack(watch, tls.connect())  # expect: error
    relay: Relay = echo  # expect: error
    tcp.server(":443", relay)  # expect: error
    _ = handler, connector
