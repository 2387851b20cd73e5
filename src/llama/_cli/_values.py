"""Options' texts as values; an error says what was expected."""

from __future__ import annotations

import ipaddress
import math
import re

import click

from llama import ConfigError, Target

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", re.ASCII)


def seconds(text: str) -> float | None:
    """`10`, `10s`, `500ms`, `5m`, `1h` or `off`, which is None."""
    if text == "off":
        return None
    match = _DURATION.fullmatch(text)
    value = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{text!r} is no length of time: expected such as 10, 500ms, 5m or off.")
    return value


def listen(text: str) -> str:
    """`HOST:PORT`, `:PORT` for every address, `PORT` for this machine only, `unix:PATH` or `fd:NUMBER`."""
    if text.isascii() and text.isdigit():
        text = f"localhost:{text}"
    if text.startswith("fd:") and text[3:].isdigit():
        return text
    if text == "unix:" or not _is_target(f"any{text}" if text.startswith(":") else text):
        expected = "HOST:PORT, [IPV6]:PORT, :PORT, PORT, unix:PATH or fd:NUMBER"
        raise click.BadParameter(f"{text!r} is no address to listen on: expected {expected}.")
    return text


def _is_target(text: str) -> bool:
    try:
        Target.parse(text)
    except ConfigError:
        return False
    return True


def is_here(address: str) -> bool:
    """Whether only this machine reaches what listens there; False where that is not known."""
    if address.startswith("unix:"):
        return True
    if address.startswith((":", "fd:")):
        return False
    host = Target.parse(address).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def user(text: str) -> tuple[str, str]:
    """`NAME:PASSWORD`; the error does not show it."""
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise click.BadParameter("expected NAME:PASSWORD, neither of them empty.")
    return name, password


def target(text: str) -> Target:
    """`HOST:PORT` or `unix:PATH`."""
    try:
        found = Target.parse(text)
    except ConfigError as error:
        raise click.BadParameter(f"{error}.") from None
    if not found.port and not found.host.startswith("unix:"):
        raise click.BadParameter(f"{text!r} is no target: expected a port from 1 to 65535.")
    return found
