"""Shared parts of the layers for header fields: the message to change, and the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from llama._core.errors import ConfigError
from llama.http._messages.headers import checked_name, checked_value
from llama.http._messages.message import Request

Side: TypeAlias = Literal["request", "response"]
Value: TypeAlias = str | Callable[[Request], str | None]
"""The value, or a function of the request that returns the value, or None for no change."""


def check_side(side: str, where: str) -> None:
    """Raise ConfigError unless `side` is "request" or "response"."""
    if side not in ("request", "response"):
        raise ConfigError(f"{where}: expected on='request' or on='response', got {side!r}")


def check_field(name: str, value: Value | None = None) -> None:
    """Raise ValueError for an invalid field name or value."""
    checked_name(name)
    if isinstance(value, str):
        checked_value(value)


def resolve_value(value: Value, request: Request) -> str | None:
    """Return the value for this request."""
    return value if isinstance(value, str) else value(request)
