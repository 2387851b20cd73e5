"""Texts of the options of `llama mitm` as values; an error says what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

from llama import ConfigError, Middleware, Target, mitm
from llama._cli import param_types
from llama.http import Origin, Request, Response

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)", re.ASCII | re.IGNORECASE)
_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_RANGE = re.compile(r"(.+?)(?:-|\.\.)(.+)")


def size(text: str) -> int:
    """Bytes: `4096`, `64K`, `10M`, `1G`."""
    match = _SIZE.fullmatch(text)
    value = float(match[1]) * _UNITS[match[2].upper()] if match else math.inf
    if not value < math.inf:
        raise click.BadParameter(f"{text!r} is no size: expected such as 4096, 64K, 10M or 1G.")
    return int(value)


def rate(text: str) -> float:
    """Bytes a second, more than none."""
    if (found := size(text)) > 0:
        return float(found)
    raise click.BadParameter(f"{text!r} is no rate: expected bytes a second, such as 64K or 1M.")


def span(text: str) -> float:
    """A length of time in seconds, without an end for `off`."""
    found = param_types.seconds(text)
    return math.inf if found is None else found


def pair(text: str) -> tuple[str, str]:
    """`URL=OTHER`, parted at the first `=`."""
    left, mark, right = text.partition("=")
    if not mark or not left or not right:
        raise click.BadParameter(f"{text!r}: expected two sides with = between.")
    return left, right


def fingerprint(text: str) -> str:
    """The SHA-256 of a certificate: 64 digits, with colons or without."""
    if not _FINGERPRINT.fullmatch(text.replace(":", "")):
        raise click.BadParameter(f"{text!r} is no SHA-256 fingerprint: expected 64 hexadecimal digits.")
    return text


@dataclass(frozen=True, slots=True)
class FixedTarget:
    """The target of `--mode forward`, and whether it is reached over TLS: None as each client's connection is."""

    target: Target
    tls: bool | None = None

    @classmethod
    def parse(cls, text: str) -> FixedTarget:
        """`HOST:PORT`, `unix:PATH`, `http://HOST[:PORT]` or `https://HOST[:PORT]`."""
        if "://" not in text:
            return cls(param_types.target(text))
        try:
            origin = Origin.parse(text)
        except ConfigError as error:
            raise click.BadParameter(f"{error}.") from None
        if origin.scheme not in ("http", "https"):
            raise click.BadParameter(f"{text!r}: expected HOST:PORT, http://HOST:PORT or https://HOST:PORT.")
        return cls(origin.target, origin.scheme == "https")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a rule is about: every kind that is given has to match."""

    hosts: tuple[str, ...] = ()
    sni: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """`HOST,sni=NAME,client=NETWORK`: any of them, several of each."""
        found: dict[str, list[str]] = {"": [], "sni": [], "client": []}
        for part in text.split(","):
            kind, mark, value = part.strip().rpartition("=")
            if not value or (mark and not kind) or kind not in found:
                raise click.BadParameter(f"{text!r}: expected HOST[:PORT], sni=NAME or client=NETWORK.")
            found[kind].append(value)
        made = cls(tuple(found[""]), tuple(found["sni"]), tuple(found["client"]))
        try:
            made.rule(mitm.intercept)
        except ConfigError as error:
            raise click.BadParameter(f"{error}.") from None
        return made

    def rule(self, make: Callable[..., mitm.Rule]) -> mitm.Rule:
        """The rule, made by `mitm.intercept` or another of its kind."""
        return make(*self.hosts, sni=self.sni, clients=self.clients)


def _span(text: str) -> tuple[float, float]:
    both = _RANGE.fullmatch(text)
    low, high = (both[1], both[2]) if both else (text, text)
    return param_types.seconds(low) or 0.0, param_types.seconds(high) or 0.0


def faults(text: str) -> Middleware[Request, Response]:
    """`latency=200ms-1s,errors=0.1,status=503,aborts=0.05,after=1000,seed=1`: some of these."""
    kinds: dict[str, Callable[[str], object]] = {
        "latency": _span,
        "errors": float,
        "status": int,
        "aborts": float,
        "after": size,
        "seed": int,
    }
    given: dict[str, object] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            given[name] = kinds[name](value)
        except KeyError:
            raise click.BadParameter(f"{name!r} is no fault: expected {', '.join(kinds)}.") from None
        except ValueError:
            raise click.BadParameter(f"{part!r}: expected a number.") from None
    make: Callable[..., Middleware[Request, Response]] = mitm.faults
    try:
        return make(**given)
    except ConfigError as error:
        raise click.BadParameter(f"{error}.") from None


def mapping(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pairs as a mapping; ConfigError for a URL that is there twice."""
    made: dict[str, str] = {}
    for left, right in pairs:
        if left in made:
            raise ConfigError(f"{left} is there twice")
        made[left] = right
    return made
