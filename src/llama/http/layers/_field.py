"""What the layers for one header field share: which message it is on, and where its value comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from llama._errors import ConfigError
from llama.http._headers import checked_name, checked_value
from llama.http._message import Request

Side: TypeAlias = Literal["request", "response"]
Value: TypeAlias = str | Callable[[Request], str | None]
"""The value itself, or what makes it of the request; None leaves the field as it is."""


def check_side(side: str, where: str) -> None:
    """Raise ConfigError for what is neither side."""
    if side not in ("request", "response"):
        raise ConfigError(f"{where}: on={side!r}: expected 'request' or 'response'")


def check_field(name: str, value: Value | None = None) -> None:
    """Raise ValueError for what cannot be a field, when the layer is made."""
    checked_name(name)
    if isinstance(value, str):
        checked_value(value)


def made(value: Value, request: Request) -> str | None:
    """The value for this exchange."""
    return value if isinstance(value, str) else value(request)
