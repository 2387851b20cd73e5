"""The limits and timeouts of a WebSocket."""

from __future__ import annotations

from dataclasses import dataclass

from llama._core.errors import ConfigError

MAX_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_size` in bytes; times in seconds, None for no limit."""

    who: str
    max_size: int = MAX_SIZE
    compression: bool = True
    ping_interval: float | None = None
    ping_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ConfigError(f"{self.who}(max_size={self.max_size}): expected at least 1")
        for name in ("ping_interval", "ping_timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{self.who}({name}={value}): expected more than 0, or None")
        if self.ping_timeout is not None and self.ping_interval is None:
            raise ConfigError(f"{self.who}(ping_timeout={self.ping_timeout}): expected a ping_interval too")
