"""From options to stacks; a ConfigError names the option."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llama import (
    ConfigError,
    Connector,
    Handler,
    Relay,
    Server,
    Stream,
    Target,
    http,
    socks5,
    stack,
    tcp,
    tls,
    via,
)
from llama._cli._access import log_connections, log_relays
from llama._cli._options import Given
from llama._cli._values import is_here, users_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """How files are served."""

    index: str | None
    listing: bool
    cache_control: str | None
    dotfiles: bool
    compress: bool


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


def relay(given: Given, what: str) -> Relay:
    """What carries bytes, and tells of it where that is wanted."""
    made = tcp.relay(idle_timeout=given.idle_timeout)
    return made if given.access_log is None else log_relays(given.access_log, what)(made)


def users(given: Given) -> dict[str, str]:
    """Who is served; nobody in particular where it is empty."""
    if given.user_file is None:
        return dict(given.users)
    with naming("--user-file"):
        return {**users_of(given.user_file), **dict(given.users)}


def socks5_server(given: Given) -> Handler:
    """The SOCKS5 server."""
    check_open(given)
    connect = connector(given)
    known = users(given)
    with naming("--user" if given.users else "--user-file"):
        return socks5.server(
            auth=known or None,
            connect=connect,
            relay=relay(given, "SOCKS"),
            private=given.private or None,
            handshake_timeout=given.handshake_timeout,
        )


def http_proxy(given: Given) -> Handler:
    """The HTTP forward proxy."""
    check_open(given)
    connect = connector(given)
    carry = tcp.relay(idle_timeout=given.idle_timeout)
    private = given.private or None
    exchange = http.proxy(connect=connect, relay=carry, client=_client(given, connect), private=private)
    if known := users(given):
        exchange = http.proxy_auth(known)(exchange)
    return _http(given, exchange)


def reverse_proxy(given: Given, to: Sequence[str]) -> Handler:
    """The HTTP reverse proxy."""
    client = _client(given, connector(given))
    with naming("--to"):
        return _http(given, http.reverse_proxy(to, client=client))


def static(given: Given, folder: str, options: StaticOptions) -> Handler:
    """The files below a directory."""
    if options.index is not None and os.path.basename(options.index) != options.index:
        raise ConfigError(
            f"--index: {options.index!r} is no name of a file: expected one without a slash, or off"
        )
    with naming("DIR"):
        files = http.static(
            folder,
            index=options.index,
            cache_control=options.cache_control,
            dotfiles=options.dotfiles,
            listing=options.listing,
        )
    return _http(given, http.compress()(files) if options.compress else files)


def _client(given: Given, connect: Connector) -> http.Exchange:
    return http.client(
        connect,
        connect_timeout=given.connect_timeout,
        head_timeout=given.answer_timeout,
        body_timeout=given.idle_timeout,
    )


def _http(given: Given, exchange: http.Exchange) -> Handler:
    if given.access_log is not None:
        exchange = http.access_log(given.access_log)(exchange)
    server = http.server(
        first_byte_timeout=given.first_byte_timeout,
        head_timeout=given.handshake_timeout,
        body_timeout=given.idle_timeout,
        idle_timeout=given.idle_timeout,
        write_timeout=given.idle_timeout,
    )
    return stack(server, exchange)


def forward(given: Given, to: Target) -> Handler:
    """Bytes to one target."""
    return tcp.forward(to, connect=connector(given), relay=relay(given, "FORWARD"))


def echo(given: Given) -> Handler:
    """What is sent comes back."""
    service: Handler = _echo
    if given.idle_timeout is not None:
        service = tcp.idle_timeout(given.idle_timeout)(service)
    return service if given.access_log is None else log_connections(given.access_log, "ECHO")(service)


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def check_open(given: Given) -> None:
    """A proxy that others can reach asks who they are, unless it is told not to."""
    if given.users or given.user_file is not None or given.is_open:
        return
    for each in given.listen:
        if not is_here(each):
            raise ConfigError(
                f"--listen: {each} may be reached from other machines, and everybody there could use this "
                "proxy: expected --user-file FILE or --user NAME:PASSWORD, or --open if that is what it is for"
            )
