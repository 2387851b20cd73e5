"""What HTTP/3 servers and clients are told."""

from __future__ import annotations

from dataclasses import dataclass

from llama._errors import ConfigError
from llama.http._settings import Settings
from llama.http.wire._h1_fields import Limits


@dataclass(frozen=True, slots=True)
class H3Settings:
    """What an HTTP/3 server is told beside what any HTTP server is; seconds and counts."""

    http: Settings
    handshake_timeout: float
    idle_timeout: float
    max_connections: int
    retry_from: int

    def __post_init__(self) -> None:
        _check(self, "http.h3_server", "handshake_timeout", "idle_timeout", "max_connections")


@dataclass(frozen=True, slots=True)
class H3ClientSettings:
    """What an HTTP/3 client is told: seconds, None for no bound, and counts."""

    verify: bool
    race: float | None
    connect_timeout: float
    idle_timeout: float
    head_timeout: float | None
    body_timeout: float | None
    max_connections: int
    limits: Limits

    def __post_init__(self) -> None:
        times = ("race", "connect_timeout", "idle_timeout", "head_timeout", "body_timeout")
        _check(self, "http.h3_client", *times, "max_connections")


def _check(settings: object, what: str, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{what}({name}={value}): expected more than 0")
