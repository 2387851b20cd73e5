"""The check for the `http3` extra."""

from __future__ import annotations

import importlib.util

from llama._core.errors import ConfigError


def has_qh3() -> bool:
    """Whether the `http3` extra is installed."""
    return importlib.util.find_spec("qh3") is not None


def require_qh3(what: str) -> None:
    """Raise ConfigError if the `http3` extra is not installed."""
    if not has_qh3():
        raise ConfigError(f"{what} needs the http3 extra: pip install proxy-llama[http3]")
