"""The settings of HTTP/3 servers and clients."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from llama._core.errors import ConfigError
from llama.http._limits import DEFAULT_LIMITS, Limits
from llama.http._server_settings import ServerSettings
from llama.tls._keylog import KeyLog

PathLike: TypeAlias = str | os.PathLike[str]
MAX_CONNECTIONS_PER_ORIGIN = 4

KEY = 16


@dataclass(frozen=True, slots=True)
class H3Settings:
    """The settings of an HTTP/3 server, in addition to those of any HTTP server; seconds and counts."""

    http: ServerSettings
    handshake_timeout: float
    idle_timeout: float
    max_connections: int
    retry_threshold: int
    reset_key: bytes | None
    early_data: bool
    keylog: KeyLog | None

    def __post_init__(self) -> None:
        _check(self, "http.h3_server", "handshake_timeout", "idle_timeout", "max_connections")
        if self.reset_key is not None and len(self.reset_key) < KEY:
            raise ConfigError(
                f"http.h3_server(reset_key=): {len(self.reset_key)} bytes, expected at least {KEY}"
            )


@dataclass(frozen=True, slots=True)
class H3Identity:
    """The authorities, certificate and server name of an HTTP/3 client."""

    ca: PathLike | None = None
    verify: bool = True
    server_name: str | None = None
    cert: PathLike | None = None
    key: PathLike | None = None
    password: str | Callable[[], str] | None = None
    keylog: KeyLog | None = None

    def __post_init__(self) -> None:
        if not self.verify and self.ca is not None:
            raise ConfigError(f"http.h3_client(): ca={self.ca!r} and verify=False are mutually exclusive")
        if self.key is not None and self.cert is None:
            raise ConfigError("http.h3_client(): key= requires cert=")


@dataclass(frozen=True, slots=True)
class H3ClientSettings:
    """The settings of an HTTP/3 client: seconds, None for no timeout, and counts."""

    alt_svc_timeout: float | None = None
    connect_timeout: float | None = 10.0
    pool_timeout: float | None = None
    response_header_timeout: float | None = None
    body_timeout: float | None = None
    write_timeout: float | None = None
    idle_timeout: float = 30.0
    max_connections: int | None = 256
    max_per_host: int | None = MAX_CONNECTIONS_PER_ORIGIN
    max_idle: int = 256
    max_waiting: int = 1024
    limits: Limits = DEFAULT_LIMITS
    early_data: bool = False

    def __post_init__(self) -> None:
        times = (
            "alt_svc_timeout",
            "connect_timeout",
            "pool_timeout",
            "idle_timeout",
            "response_header_timeout",
            "body_timeout",
            "write_timeout",
        )
        _check(self, "http.h3_client", *times, "max_connections", "max_per_host")
        if self.max_waiting < 0:
            raise ConfigError(f"http.h3_client(max_waiting={self.max_waiting}): expected 0 or more")


def _check(settings: object, what: str, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{what}({name}={value}): expected a number greater than 0")
