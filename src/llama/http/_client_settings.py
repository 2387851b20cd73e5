"""Settings of the HTTP client: timeouts and limits."""

from __future__ import annotations

from dataclasses import dataclass

from llama._core.errors import ConfigError
from llama.http._limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings of one HTTP client. Timeouts are in seconds, limits count connections and waiting requests.

    None disables a timeout or a limit.
    """

    connect_timeout: float | None = None
    pool_timeout: float | None = None
    response_header_timeout: float | None = None
    body_timeout: float | None = None
    write_timeout: float | None = None
    idle_timeout: float | None = 60.0
    max_connections: int | None = 16_384
    max_per_host: int | None = 8_192
    max_idle: int = 1024
    max_idle_per_host: int = 256
    max_waiting: int = 1024
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        for name in (
            "connect_timeout",
            "pool_timeout",
            "response_header_timeout",
            "body_timeout",
            "write_timeout",
            "idle_timeout",
            "max_connections",
            "max_per_host",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"http.client({name}={value}): expected more than 0, or None")
        for name in ("max_idle", "max_idle_per_host", "max_waiting"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigError(f"http.client({name}={value}): expected 0 or more")
