"""The options of interception, and their validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypedDict

from llama._core.errors import ConfigError
from llama._core.service import Layer
from llama._core.stack import check_accepts
from llama._core.stream import Stream
from llama._core.target import Bridge, Connector, Relay
from llama.http import Request, Response
from llama.http import server as http_server
from llama.mitm._chunks import ChunkHook
from llama.mitm._pages import PORTAL_HOST, error_page
from llama.mitm._pinning import Pinning
from llama.mitm._rules import ACTIONS, Action, Rule, Rules
from llama.tcp import relay as tcp_relay
from llama.tls import connect as tls_connect
from llama.tls._keylog import KeyLog, open_key_log

OnTLSError: TypeAlias = Literal["error_page", "passthrough"]
TLSMaker: TypeAlias = Callable[[Connector], Connector]
ServerLayer: TypeAlias = Layer[Request, Response, Stream, None]


class Options(TypedDict, total=False):
    """The options of `mitm.relay` and `mitm.proxy`, documented in `mitm.relay`."""

    rules: Sequence[Rule]
    default: Action
    pinning: Pinning | None
    connect_upstream_first: bool
    on_tls_error: OnTLSError
    verify: bool | str | os.PathLike[str]
    tls: TLSMaker | None
    upstream_tls: bool | None
    revoked_fingerprints: Collection[str]
    on_chunk: ChunkHook | None
    server_first_timeout: float | None
    handshake_timeout: float | None
    server: ServerLayer | None
    passthrough_relay: Relay | None
    portal_host: str | None
    certificate_cache_size: int
    keylog: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class MitmSettings:
    """The validated settings of interception, the same for every listener."""

    rules: Rules
    pinning: Pinning | None
    connect_upstream_first: bool
    on_tls_error: OnTLSError
    tls: TLSMaker
    upstream_tls: bool | None
    revoked_fingerprints: frozenset[str]
    on_chunk: ChunkHook | None
    server_first_timeout: float | None
    handshake_timeout: float | None
    server: ServerLayer
    passthrough_relay: Relay
    portal_host: str | None
    certificate_cache_size: int
    keylog: KeyLog | None


def settings(where: str, options: Options) -> MitmSettings:
    """Convert options into settings. Raises ConfigError for invalid values, TypeError for unknown options."""
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(f"{where}() got an unexpected keyword argument {name!r}")
    host = options.get("portal_host", PORTAL_HOST)
    made = MitmSettings(
        rules=Rules(tuple(options.get("rules", ())), options.get("default", "intercept")),
        pinning=options.get("pinning"),
        connect_upstream_first=options.get("connect_upstream_first", True),
        on_tls_error=options.get("on_tls_error", "error_page"),
        tls=_tls_maker(where, options),
        upstream_tls=options.get("upstream_tls"),
        revoked_fingerprints=frozenset(
            _fingerprint(where, each) for each in options.get("revoked_fingerprints", ())
        ),
        on_chunk=options.get("on_chunk"),
        server_first_timeout=options.get("server_first_timeout"),
        handshake_timeout=options.get("handshake_timeout"),
        server=options.get("server") or http_server(error_handler=error_page),
        passthrough_relay=options.get("passthrough_relay") or tcp_relay(),
        portal_host=None if host is None else host.lower(),
        certificate_cache_size=options.get("certificate_cache_size", 1024),
        keylog=open_key_log(options.get("keylog")),
    )
    _check(where, made)
    return made


def _check(where: str, made: MitmSettings) -> None:
    if made.rules.default not in ACTIONS:
        raise ConfigError(f"{where}(default={made.rules.default!r}): expected one of {', '.join(ACTIONS)}")
    if made.on_tls_error not in ("error_page", "passthrough"):
        raise ConfigError(f"{where}(bad_upstream={made.on_tls_error!r}): expected 'page' or 'pass'")
    if made.on_tls_error == "passthrough" and not made.connect_upstream_first:
        raise ConfigError(f"{where}(bad_upstream='pass') needs connect_first=True")
    for name in ("server_first_timeout", "handshake_timeout"):
        seconds = getattr(made, name)
        if seconds is not None and seconds <= 0:
            raise ConfigError(f"{where}({name}={seconds}): expected more than 0, or None")
    check_accepts(made.passthrough_relay, Bridge, f"{where}(carry=)")


def _fingerprint(where: str, text: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) != 64 or not all(each in "0123456789abcdef" for each in digits):
        raise ConfigError(f"{where}(revoked=): expected a SHA-256 fingerprint of 64 hex digits, got {text!r}")
    return digits


def _tls_maker(where: str, options: Options) -> TLSMaker:
    """Return the function that wraps a connector with TLS to upstreams."""
    verify, tls = options.get("verify", True), options.get("tls")
    if tls is not None:
        if verify is not True:
            raise ConfigError(f"{where}(): tls= and verify={verify!r} are mutually exclusive")
        return tls
    connect = partial(tls_connect, keylog=options.get("keylog"))
    if verify is True:
        return connect
    if verify is False:
        return partial(connect, insecure=True)
    return partial(connect, ca=verify)
