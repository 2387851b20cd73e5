"""What looking into connections is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from llama._errors import ConfigError
from llama._target import Connector
from llama.mitm._chunks import ChunkHook
from llama.mitm._pinning import Pinning
from llama.mitm._rules import ACTIONS, Action, Rule, Rules
from llama.tls import connect as tls_connect

BadUpstream: TypeAlias = Literal["page", "pass"]
TlsMaker: TypeAlias = Callable[[Connector], Connector]


@dataclass(frozen=True, slots=True)
class Settings:
    """How connections are looked into, whatever the front door."""

    rules: Rules
    pinning: Pinning | None
    connect_first: bool
    bad_upstream: BadUpstream
    revoked: frozenset[str]
    chunks: ChunkHook | None
    server_first: float | None
    handshake_timeout: float | None


def settings(
    where: str,
    *,
    rules: Sequence[Rule],
    default: Action,
    pinning: Pinning | None,
    connect_first: bool,
    bad_upstream: BadUpstream,
    revoked: Collection[str],
    chunks: ChunkHook | None,
    server_first: float | None,
    handshake_timeout: float | None,
) -> Settings:
    """The settings of `mitm.relay` and `mitm.proxy`; ConfigError for those that cannot work."""
    if default not in ACTIONS:
        raise ConfigError(f"{where}: default={default!r}: expected one of {', '.join(map(repr, ACTIONS))}")
    if bad_upstream not in ("page", "pass"):
        raise ConfigError(f"{where}: bad_upstream={bad_upstream!r}: expected 'page' or 'pass'")
    if bad_upstream == "pass" and not connect_first:
        raise ConfigError(
            f"{where}: bad_upstream='pass' needs connect_first: the upstream has to be seen first"
        )
    for name, seconds in (("server_first", server_first), ("handshake_timeout", handshake_timeout)):
        if seconds is not None and seconds <= 0:
            raise ConfigError(f"{where}: {name}={seconds}: expected more than 0, or None")
    return Settings(
        Rules(tuple(rules), default), pinning, connect_first, bad_upstream,
        frozenset(map(_fingerprint, revoked)), chunks, server_first, handshake_timeout,
    )  # fmt: skip


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) != 64 or not all(each in "0123456789abcdef" for each in digits):
        raise ConfigError(f"revoked: {text!r} is no SHA-256 fingerprint of a certificate: 64 digits")
    return digits


def tls_maker(where: str, verify: bool | str | os.PathLike[str], tls: TlsMaker | None) -> TlsMaker:
    """What puts TLS towards upstreams over a connector."""
    if tls is not None:
        if verify is not True:
            raise ConfigError(f"{where}: tls= says what is verified, so verify={verify!r} has no use")
        return tls
    if verify is True:
        return tls_connect
    if verify is False:
        return partial(tls_connect, insecure=True)
    return partial(tls_connect, ca=verify)
