"""Options' texts as values; an error says what was expected."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING

import click

from llama import ConfigError, Target
from llama.http._h1.wire.head import is_authority

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


def is_local(address: str) -> bool:
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


if TYPE_CHECKING:
    ParamType = click.ParamType[tuple[str, str]]
else:  # it is generic in later versions of click only
    ParamType = click.ParamType


class User(ParamType):
    """`NAME:PASSWORD`, in a variable one a line; the error does not show it."""

    name = "user"
    envvar_list_splitter = "\n"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        if (found := user(value.strip("\r"))) is None:
            raise click.BadParameter("expected NAME:PASSWORD, neither of them empty.", ctx, param)
        return found


def user(text: str) -> tuple[str, str] | None:
    """`NAME:PASSWORD`, neither of them empty; else None."""
    name, colon, password = text.partition(":")
    return (name, password) if name and colon and password else None


def users_of(path: str) -> dict[str, str]:
    """The users that a file names, one a line; lines that are empty or begin with # are none."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read {path}: {reason}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (pair := user(line)) is None:
            raise ConfigError(f"{path}, line {number}: expected NAME:PASSWORD, neither of them empty")
        found[pair[0]] = pair[1]
    if not found:
        raise ConfigError(f"{path} names no users: expected NAME:PASSWORD, one a line")
    return found


def target(text: str) -> Target:
    """`HOST:PORT` or `unix:PATH`."""
    try:
        found = Target.parse(text)
    except ConfigError as error:
        raise click.BadParameter(f"{error}.") from None
    if not found.port and not found.host.startswith("unix:"):
        raise click.BadParameter(f"{text!r} is no target: expected a port from 1 to 65535.")
    return found


def host_header(text: str) -> str:
    """`upstream` or `HOST[:PORT]`."""
    if not text or not is_authority(text):
        raise click.BadParameter(f"{text!r} is not a host: expected HOST[:PORT] or upstream.")
    return text
