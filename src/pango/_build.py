"""From settings to stacks and servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from llama import ConnectionHandler, Connector, Server, Target, http, stack, tcp, tls
from pango._certificate_info import CertificateInfo, examine, read_password
from pango._settings import CLIENT_TIMEOUT, FIRST_BYTE_TIMEOUT, ConfigErrors, Settings, check_together
from pango._target_balancer import RoundRobin, Upstream

Layers: TypeAlias = list[Callable[[ConnectionHandler], ConnectionHandler]]
NAME = "pango"  # in Via and Proxy-Status
NO_TIMEOUT = 86_400.0  # seconds, where a bound is off that HTTP/3 needs
MAX_SOURCES = 10_000  # connections of HTTP/3, where no bound is set


def preflight(settings: Settings, problems: ConfigErrors, *, targets: bool = True) -> list[CertificateInfo]:
    """Look at settings and the files they name without starting anything; problems are noted.

    `targets` says that some are needed.
    """
    if targets and not settings.to and "to" not in problems:
        problems.add(
            "to",
            "missing: expected HOST:PORT, tls://HOST:PORT, unix:PATH, http://HOST:PORT or https://HOST:PORT",
        )
    check_together(settings, problems)
    return examine(settings, problems)


def servers(settings: Settings, exchange: http.RequestHandler | None = None) -> list[Server]:
    """The servers, in front of the targets or of an exchange; raises ConfigError when their parts find fault."""
    if exchange is None and settings.is_http:
        exchange = _reverse_proxy(settings)
    if exchange is None:
        return over_tcp(settings, _relays(settings))
    exchange = _with_logging(settings, exchange)
    if not settings.http3:
        return over_tcp(settings, _web(settings, exchange))
    made = over_tcp(settings, _web(settings, http.alt_svc()(exchange)))
    return made + [_over_udp(settings, each, exchange) for each in settings.listen]


def over_tcp(settings: Settings, service: ConnectionHandler) -> list[Server]:
    """A server for each address, all over one stack."""
    for layer in reversed(_layers(settings)):
        service = layer(service)
    return [tcp.server(each, service) for each in settings.listen]


def _over_udp(settings: Settings, address: str, exchange: http.RequestHandler) -> Server:
    first, *others = settings.certificates
    file = settings.key_password_file
    password = None if file is None else partial(read_password, file)
    return http.h3_server(
        address,
        exchange,
        first.cert,
        first.key,
        *(tls.Certificate(each.cert, each.key, password=password) for each in others),
        password=password,
        client_ca=settings.client_ca,
        handshake_timeout=settings.handshake_timeout or NO_TIMEOUT,
        idle_timeout=settings.idle_timeout or NO_TIMEOUT,
        body_timeout=CLIENT_TIMEOUT,
        write_timeout=CLIENT_TIMEOUT,
        proxy_name=NAME,
        max_connections=settings.max_connections or MAX_SOURCES,
        keylog=settings.keylog,
    )


def _layers(settings: Settings) -> Layers:
    found: Layers = []
    if settings.max_connections is not None:
        found.append(tcp.connection_limit(settings.max_connections))
    if settings.proxy_protocol_from:
        found.append(
            tcp.proxy_protocol(trust=settings.proxy_protocol_from, timeout=settings.handshake_timeout)
        )
    if not settings.plain:
        found.append(_tls(settings))
    return found


def _tls(settings: Settings) -> Callable[[ConnectionHandler], ConnectionHandler]:
    first, *others = settings.certificates
    file = settings.key_password_file
    password = None if file is None else partial(read_password, file)
    version = f"TLSv{settings.minimum_version}"
    return tls.server(
        first.cert,
        first.key,
        *(
            tls.Certificate(
                each.cert,
                each.key,
                password=password,
                alpn=settings.alpn,
                client_ca=settings.client_ca,
                minimum_version=version,
            )
            for each in others
        ),
        password=password,
        alpn=settings.alpn,
        client_ca=settings.client_ca,
        minimum_version=version,
        handshake_timeout=settings.handshake_timeout,
        keylog=settings.keylog,
    )


def _relays(settings: Settings) -> ConnectionHandler:
    """What carries each connection to its target."""
    relay = tcp.relay(idle_timeout=settings.idle_timeout)
    upstreams = [Upstream(each, _target(each), _connector(each, settings)) for each in settings.to]
    if len(upstreams) > 1:
        return RoundRobin(upstreams, relay)
    return tcp.forward(upstreams[0].target, connect=upstreams[0].connect, relay=relay)


def _web(settings: Settings, exchange: http.RequestHandler) -> ConnectionHandler:
    """A server of HTTP."""
    idle = settings.idle_timeout
    server = http.server(
        first_byte_timeout=min(idle or FIRST_BYTE_TIMEOUT, FIRST_BYTE_TIMEOUT),
        idle_timeout=idle,
        head_timeout=settings.handshake_timeout,
        body_timeout=CLIENT_TIMEOUT,
        write_timeout=CLIENT_TIMEOUT,
        proxy_name=NAME,
    )
    return stack(server, exchange)


def _with_logging(settings: Settings, exchange: http.RequestHandler) -> http.RequestHandler:
    """With the layers that are asked for, which are the same for every version of HTTP."""
    if settings.access_log is not None:
        exchange = http.access_log(settings.access_log)(exchange)
    if settings.forwarded_from:
        exchange = http.forwarded(trust=settings.forwarded_from, header=settings.forwarded_header, host=True)(
            exchange
        )
    return exchange


def _reverse_proxy(settings: Settings) -> http.RequestHandler:
    connect = tcp.connect(timeout=settings.connect_timeout)
    timeout = settings.connect_timeout
    secure = any(each.startswith(("https://", "h3://")) for each in settings.to)
    client = http.client(
        connect,
        tls=_upstream_tls(connect, settings) if secure else None,
        connect_timeout=timeout,
        response_header_timeout=settings.response_header_timeout,
        body_timeout=settings.idle_timeout,
        write_timeout=settings.idle_timeout,
    )
    return http.reverse_proxy(settings.to, client=client, via=NAME, retries=settings.retries)


def _target(text: str) -> Target:
    return Target.parse(text.removeprefix("tls://"))


def _connector(text: str, settings: Settings) -> Connector:
    connect = tcp.connect(timeout=settings.connect_timeout)
    if settings.proxy_protocol is not None:
        connect = tcp.send_proxy(connect=connect, version=1 if settings.proxy_protocol == 1 else 2)
    if text.startswith("tls://"):
        connect = _upstream_tls(connect, settings)
    return connect


def _upstream_tls(connect: Connector, settings: Settings) -> Connector:
    return tls.connect(
        connect,
        ca=settings.to_ca,
        insecure=settings.to_insecure,
        cert=settings.to_cert,
        key=settings.to_key,
        handshake_timeout=settings.connect_timeout,
        keylog=settings.keylog,
    )
