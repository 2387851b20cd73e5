"""Settings of the HTTP server: timeouts, limits and options."""

from __future__ import annotations

from dataclasses import dataclass

from llama._core.errors import ConfigError
from llama.http._limits import DEFAULT_H2_LIMITS, DEFAULT_LIMITS, H2Limits, Limits
from llama.http._messages.error_response import ErrorHandler, plain_text_error

TIMEOUT_NAMES = (
    "first_byte_timeout",
    "head_timeout",
    "body_timeout",
    "idle_timeout",
    "handler_timeout",
    "write_timeout",
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of one HTTP server. Timeouts are in seconds; None disables one."""

    first_byte_timeout: float | None = None
    head_timeout: float | None = None
    body_timeout: float | None = None
    idle_timeout: float | None = None
    handler_timeout: float | None = None
    write_timeout: float | None = None
    max_requests: int | None = None
    half_close: bool = False
    error_handler: ErrorHandler = plain_text_error
    limits: Limits = DEFAULT_LIMITS
    h2: H2Limits = DEFAULT_H2_LIMITS

    def __post_init__(self) -> None:
        for name in (*TIMEOUT_NAMES, "max_requests"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"http.server({name}={value}): expected more than 0, or None")


DEFAULT_SETTINGS = ServerSettings()
