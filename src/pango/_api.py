"""pango as a library: the same proxy, in front of targets or of an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias, TypedDict, Unpack

import llama
from llama import Server, Serving, asgi
from pango import _build, _logs, _settings
from pango._demo_app import Message, Receive, Send
from pango._settings import AccessLog, ConfigErrors, ForwardedHeader, Settings, check_values, key_files

ASGIApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
OneOrMany: TypeAlias = str | Sequence[str]

LISTEN = ":443"


class Options(TypedDict, total=False):
    """The keywords of `run` and `serve`; times in seconds, None for no limit."""

    to: OneOrMany
    listen: OneOrMany
    cert: OneOrMany
    key: OneOrMany
    key_password_file: str | None
    client_ca: str | None
    alpn: Sequence[str] | None
    minimum_version: str
    plain: bool
    to_ca: str | None
    to_insecure: bool
    to_cert: str | None
    to_key: str | None
    keylog: str | None
    proxy_protocol: int | None
    proxy_protocol_from: OneOrMany
    max_connections: int | None
    handshake_timeout: float | None
    connect_timeout: float | None
    idle_timeout: float | None
    response_header_timeout: float | None
    retries: int
    forwarded_from: OneOrMany
    forwarded_header: ForwardedHeader
    access_log: AccessLog | None
    http3: bool
    grace: float | None


def run(app: ASGIApp | None = None, /, *, workers: int | None = None, **options: Unpack[Options]) -> None:
    """Serve until a signal ends it: `pango.run(app, cert="site.pem", key="site.key")`.

    In front of an ASGI application, or of targets that `to` lists. The keywords are the options of
    `pango serve`: several values as a list, times in seconds, `listen` is ":443" unless given. An HTTP client
    has `handshake_timeout` for each head, a minute for the first byte of a connection and for each piece of a body,
    and `idle_timeout` between requests. `http3=True` serves HTTP/3 too, at the UDP ports of the same numbers. SIGHUP
    reads the files again. `keylog` is a debugging aid: a file to append the TLS secrets of clients and targets to,
    with which anyone can decrypt their traffic. Where no logging is set up, log lines go to standard error.
    Raises ConfigError that says everything that is wrong, OSError when an address cannot be bound.
    """
    settings = _read(options, workers)
    if not logging.getLogger().handlers:
        _logs.set_up()
    llama.run(lambda: _servers(app, settings), workers=workers, grace=settings.grace)


@asynccontextmanager
async def serve(app: ASGIApp | None = None, /, **options: Unpack[Options]) -> AsyncGenerator[Serving]:
    """The same inside a running loop, in this process: `async with pango.serve(app, ...) as server:`.

    `server.addresses` are the bound ones; leaving the block stops accepting and waits for what is in flight.
    """
    settings = _read(options, workers=None)
    async with llama.serve(*_servers(app, settings), grace=settings.grace) as serving:
        yield serving


def _read(options: Options, workers: int | None) -> Settings:
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        raise TypeError(
            f"unknown keyword {unknown[0]!r}: expected one of {', '.join(Options.__annotations__)}"
        )
    problems = ConfigErrors()
    certificates = key_files(_several(options.get("cert", ())), _several(options.get("key", ())), problems)
    problems.check()
    alpn = options.get("alpn")
    return Settings(
        listen=_several(options.get("listen", LISTEN)),
        certificates=certificates,
        key_password_file=options.get("key_password_file"),
        client_ca=options.get("client_ca"),
        alpn=None if alpn is None else tuple(alpn),
        minimum_version=options.get("minimum_version", "1.2"),
        plain=options.get("plain", False),
        to=_several(options.get("to", ())),
        to_ca=options.get("to_ca"),
        to_insecure=options.get("to_insecure", False),
        to_cert=options.get("to_cert"),
        to_key=options.get("to_key"),
        keylog=options.get("keylog"),
        proxy_protocol=options.get("proxy_protocol"),
        proxy_protocol_from=_several(options.get("proxy_protocol_from", ())),
        max_connections=options.get("max_connections"),
        handshake_timeout=options.get("handshake_timeout", _settings.HANDSHAKE_TIMEOUT),
        connect_timeout=options.get("connect_timeout", _settings.CONNECT_TIMEOUT),
        idle_timeout=options.get("idle_timeout", _settings.IDLE_TIMEOUT),
        response_header_timeout=options.get("response_header_timeout"),
        retries=options.get("retries", _settings.RETRIES),
        forwarded_from=_several(options.get("forwarded_from", ())),
        forwarded_header=options.get("forwarded_header", "x-forwarded-for"),
        access_log=options.get("access_log"),
        http3=options.get("http3", False),
        grace=options.get("grace"),
        workers=workers,
    )


def _several(value: OneOrMany) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _servers(app: ASGIApp | None, settings: Settings) -> list[Server]:
    """What to run; raises TypeError or ConfigError."""
    if isinstance(app, str):
        raise TypeError(f"{app!r} is no ASGI application: a target is given as to={app!r}")
    if (app is None) == (not settings.to):
        raise TypeError("expected an ASGI application or to=, one of the two")
    problems = ConfigErrors()
    check_values(settings, problems)
    _build.preflight(settings, problems, targets=app is None)
    problems.check()
    return _build.servers(settings, None if app is None else asgi(app))
