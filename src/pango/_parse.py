"""Settings as people write them: readers of texts, whose ConfigError says what was expected."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Iterable

from llama import ConfigError, Target, http

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?", re.ASCII)


def seconds(text: str) -> float | None:
    """`10`, `10s`, `500ms`, `5m`, `1h` or `off`, which is None."""
    if text.lower() in ("off", "none"):
        return None
    match = _DURATION.fullmatch(text)
    value = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < value < math.inf:
        raise ConfigError(f"{text!r} is no length of time: expected one above 0 such as 10, 500ms, 5m or off")
    return value


def keylog(text: str) -> str:
    """A file, or `env` for the one that SSLKEYLOGFILE names."""
    path = os.environ.get("SSLKEYLOGFILE") if text == "env" else text
    if not path:
        raise ConfigError(f"{text!r} names no file: expected FILE, or env with SSLKEYLOGFILE set")
    return path


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ConfigError(f"{text!r} is no count: expected a whole number from 1 up")
    return int(text)


def count_from_0(text: str) -> int:
    """A whole number from 0 up."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f"{text!r} is no count: expected a whole number from 0 up")
    return int(text)


def listen(text: str) -> str:
    """`HOST:PORT`, `:PORT` for every address, `PORT` for this machine only, `unix:PATH` or `fd:NUMBER`."""
    if text.isascii() and text.isdigit():
        text = f"localhost:{text}"
    try:
        if text.startswith("unix:"):
            return _path(text)
        if text.startswith("fd:") and text[3:].isdigit():
            return text
        Target.parse(f"any{text}" if text.startswith(":") else text)
    except ConfigError:
        expected = "expected HOST:PORT, [IPV6]:PORT, :PORT, PORT, unix:PATH or fd:NUMBER"
        raise ConfigError(f"{text!r} is no address to listen on: {expected}") from None
    return text


def _path(text: str) -> str:
    if len(text.encode()) not in range(6, 113):
        raise ConfigError(f"{text!r} is no socket path: expected unix:PATH of 1 to 107 bytes")
    return text


HTTP = ("http://", "https://", "h2c://", "h3://", "http+unix:", "h2c+unix:")
SECURE = ("tls://", "https://", "h3://")


def is_http(target: str) -> bool:
    """Whether a target is spoken HTTP to; to others the bytes are carried as they are."""
    return target.startswith(HTTP)


def target(text: str) -> str:
    """`HOST:PORT`, `tls://HOST:PORT`, `unix:PATH`; for HTTP `http://`, `https://`, `h2c://`, `h3://` ...."""
    if is_http(text):
        http.reverse_proxy(text)  # it knows what a URL of a target can be
        return text
    expected = "expected HOST:PORT, tls://HOST:PORT, unix:PATH, http://HOST:PORT or https://HOST:PORT"
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme != "tls":
        raise ConfigError(f"{text!r} has a scheme that is not known: {expected}")
    if text.startswith("unix:"):
        return _path(text)
    try:
        found = Target.parse(rest)
    except ConfigError:
        raise ConfigError(f"{text!r} is no target: {expected}") from None
    if found.port == 0 or found.host.startswith("unix:"):
        raise ConfigError(f"{text!r} is no target: {expected}, with a port from 1 to 65535")
    return text


def networks(text: str) -> tuple[str, ...]:
    """Networks or addresses, with commas between them."""
    return tuple(_network(each.strip()) for each in text.split(",") if each.strip()) or _none(text)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        hint = _without_host_bits(text)
        raise ConfigError(f"{hint or error}: expected networks such as 10.0.0.0/8 or 2001:db8::/32") from None


def _without_host_bits(text: str) -> str:
    try:
        return f"{text!r} is an address within {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        return f"{text!r} is no network"


def _none(text: str) -> tuple[str, ...]:
    raise ConfigError(f"{text!r} holds no network: expected networks such as 10.0.0.0/8 or 2001:db8::/32")


def one_of(*choices: str) -> _OneOf:
    """A reader of one of these words."""
    return _OneOf(choices)


class _OneOf:
    def __init__(self, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)

    def __call__(self, text: str) -> str:
        if text not in self.choices:
            *others, last = self.choices
            raise ConfigError(f"{text!r} is not known: expected {', '.join(others)} or {last}")
        return text


def spell_seconds(value: float | None) -> str:
    """A length of time as people read it: `10s`, `10m`, `off`."""
    if value is None:
        return "off"
    for name, unit in (("h", 3600), ("m", 60)):
        if value >= unit and value % unit == 0:
            return f"{value / unit:g}{name}"
    return f"{value:g}s"


def protocols(text: str) -> tuple[str, ...]:
    """ALPN names with commas between them, the preferred one first."""
    names = tuple(each.strip() for each in text.split(","))
    if not all(each.isascii() and 0 < len(each) < 256 for each in names):
        raise ConfigError(f"{text!r} holds no protocol names: expected such as h2,http/1.1")
    return names
