"""From options to stacks; a ConfigError names the option."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from llama import ConfigError, Connector, Handler, Server, Stream, Target, http, socks5, stack, tcp, tls, via
from llama._cli._options import Given
from llama._cli._values import is_here


@contextmanager
def naming(option: str) -> Generator[None]:
    """Say which option a ConfigError is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def servers(given: Given, service: Handler) -> list[Server]:
    """A server for each address, with TLS in front where there is a certificate."""
    if given.cert is None and given.key is not None:
        raise ConfigError("--key: a key goes with a certificate: expected --cert too")
    if given.cert is not None:
        with naming("--cert" if given.key is None else "--cert and --key"):
            layer = tls.server(given.cert, given.key, handshake_timeout=given.handshake_timeout)
        service = layer(service)
    with naming("--listen"):
        return [tcp.server(each, service) for each in given.listen]


def connector(given: Given) -> Connector:
    """The way to targets."""
    connect = tcp.connect(timeout=given.connect_timeout)
    with naming("--via"):
        return (
            via(*given.via, over=connect, handshake_timeout=given.handshake_timeout) if given.via else connect
        )


def socks5_server(given: Given) -> Handler:
    """The SOCKS5 server."""
    check_open(given)
    connect = connector(given)
    with naming("--user"):
        return socks5.server(
            auth=dict(given.users) or None,
            connect=connect,
            private=given.private or None,
            handshake_timeout=given.handshake_timeout,
        )


def http_proxy(given: Given) -> Handler:
    """The HTTP forward proxy."""
    check_open(given)
    exchange = http.proxy(connect=connector(given), private=given.private or None)
    if given.users:
        exchange = http.proxy_auth(dict(given.users))(exchange)
    return _http(given, exchange)


def reverse_proxy(given: Given, to: Sequence[str]) -> Handler:
    """The HTTP reverse proxy."""
    client = http.client(connector(given), connect_timeout=given.connect_timeout)
    with naming("--to"):
        return _http(given, http.reverse_proxy(to, client=client))


def _http(given: Given, exchange: http.Exchange) -> Handler:
    if given.access_log is not None:
        exchange = http.access_log(given.access_log)(exchange)
    return stack(http.server(head_timeout=given.handshake_timeout), exchange)


def forward(given: Given, to: Target) -> Handler:
    """Bytes to one target."""
    return tcp.forward(to, connect=connector(given))


async def echo(stream: Stream) -> None:
    """Gives back what it gets."""
    while data := await stream.read():
        await stream.write(data)


def check_open(given: Given) -> None:
    """A proxy that others can reach asks who they are, unless it is told not to."""
    if given.users or given.is_open:
        return
    for each in given.listen:
        if not is_here(each):
            raise ConfigError(
                f"--listen: {each} may be reached from other machines, and everybody there could use this "
                "proxy: expected --user NAME:PASSWORD, or --open if that is what it is for"
            )
