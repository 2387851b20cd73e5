"""From options to stacks; a ConfigError names the option."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llama import (
    ConfigError,
    ConnectionHandler,
    Connector,
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
from llama._cli.access_log import log_associations, log_connections, log_relays
from llama._cli.common_options import CommonOptions
from llama._cli.param_types import is_local, users_of

NO_TIMEOUT = 86_400.0  # seconds, where a bound is off that HTTP/3 needs


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """How files are served."""

    index: str | None
    listing: bool
    cache_control: str | None
    dotfiles: bool
    compress: bool


@dataclass(frozen=True, slots=True)
class Web:
    """A service of HTTP: for connections over TCP, and what answers their requests."""

    handler: ConnectionHandler
    exchange: http.RequestHandler


@contextmanager
def option_errors(option: str) -> Generator[None]:
    """Say which option a ConfigError is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def servers(
    given: CommonOptions, service: ConnectionHandler | Web, *, transparent: bool = False
) -> list[Server]:
    """A server for each address, with TLS in front where there is a certificate."""
    pairs = _pairs(given)
    handler = service.handler if isinstance(service, Web) else service
    keylog = keylog_file(given)
    if pairs:
        with option_errors("--cert and --key" if given.key else "--cert"):
            first, *others = [tls.Certificate(cert, key) for cert, key in pairs]
            layer = tls.server(first, None, *others, handshake_timeout=given.handshake_timeout, keylog=keylog)
        handler = layer(handler)
    with option_errors("--listen"):
        made: list[Server] = [tcp.server(each, handler, transparent=transparent) for each in given.listen]
    if given.http3 and isinstance(service, Web):
        with option_errors("--http3"):
            made += h3_servers(given, service.exchange, keylog)
    return made


def _pairs(given: CommonOptions) -> list[tuple[str, str | None]]:
    """The certificate files with their key files."""
    if given.key and not given.cert:
        raise ConfigError("--key: a key goes with a certificate: expected --cert too")
    if not given.key:
        return [(cert, None) for cert in given.cert]
    if len(given.key) != len(given.cert):
        raise ConfigError(
            f"--key: {len(given.key)} for {len(given.cert)} --cert: expected one for each, or none"
        )
    return list(zip(given.cert, given.key, strict=True))


def h3_servers(
    given: CommonOptions, exchange: http.RequestHandler, keylog: str | None = None
) -> list[Server]:
    """A server of HTTP/3 for each address, at the UDP port of the same number."""
    if not given.cert:
        raise ConfigError("HTTP/3 is spoken over TLS only: expected --cert too")
    if len(given.cert) > 1:
        raise ConfigError(
            f"HTTP/3 is served with one certificate: expected one --cert, not {len(given.cert)}"
        )
    cert, key = _pairs(given)[0]
    for each in given.listen:
        if each.startswith(("unix:", "fd:")) or each.endswith(":0"):
            raise ConfigError(f"there is no UDP port beside {each}: expected --listen with HOST:PORT")
    return [
        http.h3_server(
            each,
            exchange,
            cert,
            key,
            handshake_timeout=given.handshake_timeout or NO_TIMEOUT,
            idle_timeout=given.idle_timeout or NO_TIMEOUT,
            body_timeout=given.idle_timeout,
            write_timeout=given.idle_timeout,
            keylog=keylog,
        )
        for each in given.listen
    ]


def keylog_file(given: CommonOptions) -> str | None:
    """The file of --keylog; ConfigError where it cannot be written."""
    path = given.keylog
    if path is None:
        return None
    if path == "env" and not (path := os.environ.get("SSLKEYLOGFILE")):
        raise ConfigError("--keylog env: SSLKEYLOGFILE is not set")
    with option_errors("--keylog"):
        tls.connect(insecure=True, keylog=path)  # it reports what is wrong under the option's name
    return path


def connector(given: CommonOptions) -> Connector:
    """The way to targets."""
    connect = tcp.connect(timeout=given.connect_timeout)
    keylog = keylog_file(given)
    if not given.via:
        return connect
    with option_errors("--via"):
        return via(*given.via, connect=connect, handshake_timeout=given.handshake_timeout, keylog=keylog)


def relay(given: CommonOptions, what: str) -> Relay:
    """What carries bytes, and tells of it where that is wanted."""
    made = tcp.relay(idle_timeout=given.idle_timeout)
    return made if given.access_log is None else log_relays(given.access_log, what)(made)


def users(given: CommonOptions) -> dict[str, str]:
    """Who is served; nobody in particular where it is empty."""
    if given.user_file is None:
        return dict(given.users)
    with option_errors("--user-file"):
        return {**users_of(given.user_file), **dict(given.users)}


def socks5_server(given: CommonOptions) -> ConnectionHandler:
    """The SOCKS5 server."""
    check_open(given)
    connect = connector(given)
    known = users(given)
    if given.socks4 and known:
        raise ConfigError("--socks4: SOCKS4 has no passwords: expected neither --user nor --user-file")
    for option, chosen in (("--udp", given.udp), ("--bind", given.bind)):
        if chosen and given.via:
            raise ConfigError(f"{option}: the proxies of --via carry outgoing connections only")
    with option_errors("--user" if given.users else "--user-file"):
        made = socks5.server(
            auth=known or None,
            connect=connect,
            relay=relay(given, "SOCKS"),
            private=given.allow_private or None,
            socks4=given.socks4,
            bind=given.bind,
            udp=given.udp,
            handshake_timeout=given.handshake_timeout,
            idle_timeout=given.idle_timeout,
        )
    return made if given.access_log is None else log_associations(given.access_log, "SOCKS UDP")(made)


def http_proxy(given: CommonOptions) -> Web:
    """The HTTP forward proxy."""
    check_open(given)
    connect = connector(given)
    carry = tcp.relay(idle_timeout=given.idle_timeout)
    private = given.allow_private or None
    exchange = http.proxy(connect=connect, relay=carry, client=_client(given, connect), private=private)
    if known := users(given):
        exchange = http.proxy_auth(known)(exchange)
    return _http(given, exchange, forward=True)


def reverse_proxy(given: CommonOptions, to: Sequence[str], host: str | None) -> Web:
    """The HTTP reverse proxy."""
    if given.via and (over_udp := [each for each in to if each.startswith("h3:")]):
        raise ConfigError(f"--via: {over_udp[0]} is reached over UDP, which these proxies do not carry")
    secure = (*given.cert, *(each for each in (*to, *given.via) if each.startswith(("https:", "h3:", "env"))))
    if given.keylog is not None and not secure:
        raise ConfigError("--keylog: expected TLS: --cert, or --to https://HOST:PORT or h3://HOST:PORT")
    connect = connector(given)
    client = _client(given, connect, _upstream_tls(given, connect))
    with option_errors("--to"):
        return _http(given, http.reverse_proxy(to, client=client, host=host))


def _upstream_tls(given: CommonOptions, connect: Connector) -> Connector | None:
    if given.to_cert is None and given.to_key is not None:
        raise ConfigError("--to-key: a key goes with a certificate: expected --to-cert too")
    if given.to_cert is None and given.keylog is None:
        return None
    keylog = keylog_file(given)
    with option_errors("--to-cert" if given.to_key is None else "--to-cert and --to-key"):
        return tls.connect(connect, cert=given.to_cert, key=given.to_key, keylog=keylog)


def static(given: CommonOptions, folder: str, options: StaticOptions) -> Web:
    """The files below a directory."""
    if options.index is not None and os.path.basename(options.index) != options.index:
        raise ConfigError(
            f"--index: {options.index!r} is no name of a file: expected one without a slash, or off"
        )
    with option_errors("DIR"):
        files = http.static(
            folder,
            index=options.index,
            cache_control=options.cache_control,
            dotfiles=options.dotfiles,
            listing=options.listing,
        )
    return _http(given, http.compress()(files) if options.compress else files)


def _client(given: CommonOptions, connect: Connector, tls: Connector | None = None) -> http.RequestHandler:
    return http.client(
        connect,
        tls=tls,
        connect_timeout=given.connect_timeout,
        response_header_timeout=given.response_header_timeout,
        body_timeout=given.idle_timeout,
        write_timeout=given.idle_timeout,
    )


def _http(given: CommonOptions, exchange: http.RequestHandler, *, forward: bool = False) -> Web:
    """Serve HTTP; what a forward proxy answers is of other origins, which have no HTTP/3 here to be told of."""
    if given.access_log is not None:
        exchange = http.access_log(given.access_log, whole_urls=forward)(exchange)
    server = http.server(
        first_byte_timeout=given.first_byte_timeout,
        head_timeout=given.handshake_timeout,
        body_timeout=given.idle_timeout,
        idle_timeout=given.idle_timeout,
        write_timeout=given.idle_timeout,
    )
    over_tcp = http.alt_svc()(exchange) if given.http3 and not forward else exchange
    return Web(stack(server, over_tcp), exchange)


def forward(given: CommonOptions, to: Target) -> ConnectionHandler:
    """Bytes to one target."""
    return tcp.forward(to, connect=connector(given), relay=relay(given, "FORWARD"))


def echo(given: CommonOptions) -> ConnectionHandler:
    """What is sent comes back."""
    service: ConnectionHandler = _echo
    if given.idle_timeout is not None:
        service = tcp.idle_timeout(given.idle_timeout)(service)
    return service if given.access_log is None else log_connections(given.access_log, "ECHO")(service)


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def check_open(given: CommonOptions) -> None:
    """A proxy that others can reach asks who they are, unless it is told not to."""
    if given.users or given.user_file is not None or given.allow_anonymous:
        return
    for each in given.listen:
        if not is_local(each):
            raise ConfigError(
                f"--listen: {each} may be reached from other machines, and everybody there could use this "
                "proxy: expected --user-file FILE or --user NAME:PASSWORD, or --allow-anonymous to allow that"
            )
