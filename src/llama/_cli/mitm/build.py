"""From the options of `llama mitm` to a stack; a ConfigError names the option."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import platformdirs

from llama import (
    ConfigError,
    Connector,
    Handler,
    Middleware,
    Relay,
    Server,
    http,
    layer,
    mitm,
    socks5,
    stack,
    tcp,
    tls,
)
from llama._cli import stacks
from llama._cli.common_options import Given
from llama._cli.mitm.background_tasks import Company
from llama._cli.mitm.observers import Watch
from llama._cli.mitm.options import Chosen
from llama._cli.mitm.param_types import mapping
from llama._cli.mitm.script.script import Script
from llama._cli.stacks import naming
from llama.http import Request, Response
from llama.mitm._har.file import HarFile
from llama.mitm._pages import error_page
from llama.mitm._settings import ServerLayer, TLSMaker
from llama.tls import CertificateAuthority

log = logging.getLogger("llama.mitm")
Hook: TypeAlias = Middleware[Request, Response]


def authority_folder(chosen: Chosen) -> Path:
    """Where the authority is kept."""
    return Path(chosen.ca) if chosen.ca else platformdirs.user_data_path("llama", appauthor=False) / "ca"


def authority(folder: Path) -> CertificateAuthority:
    """The authority, made when there is none."""
    with naming("--ca"):
        try:
            return CertificateAuthority.open(folder)
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror or error}") from None


def authority_of_a_command(chosen: Chosen) -> CertificateAuthority:
    """The same; nobody but the command has to know it, so that it may be in memory where there is no place for it."""
    folder = authority_folder(chosen)
    if chosen.ca is None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return CertificateAuthority.create()
        if not (os.access(folder, os.W_OK) or (folder / "ca.key").exists()):
            return CertificateAuthority.create()
    return authority(folder)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What was asked for besides looking: made once, it outlives a reload."""

    layers: tuple[Hook, ...]
    """The outermost first."""
    script: Script | None = None


def hooks(given: Given, chosen: Chosen) -> Hooks:
    """The hooks that were asked for."""
    layers = [*_recorders(chosen), *_troubles(chosen)]
    if chosen.script is None:
        return Hooks((*layers, *_answers(given, chosen)))
    with naming("--script"):
        script = Script(chosen.script)
    return Hooks((*layers, Company(script.watch), script.layer, *_answers(given, chosen)), script)


def _recorders(chosen: Chosen) -> list[Hook]:
    """What records, and what makes the file when it begins: no exchanges are a whole file too."""
    if chosen.har is None:
        if chosen.har_limit is not None:
            raise ConfigError("--har-limit: expected --har too")
        return []
    path = Path(chosen.har)
    recorder = mitm.record(path, most=chosen.har_limit)
    return [recorder, Company(begin=partial(_begin_recording, path))]


def _begin_recording(path: Path) -> None:
    try:
        HarFile(path).create()
    except OSError as error:
        raise ConfigError(f"--har: {path}: {error.strerror or error}") from None


def _troubles(chosen: Chosen) -> list[Hook]:
    """What makes things slow, or wrong."""
    slow = [] if chosen.throttle is None else [mitm.throttle(down=chosen.throttle, up=chosen.throttle)]
    return slow if chosen.faults is None else [*slow, chosen.faults]


def _answers(given: Given, chosen: Chosen) -> list[Hook]:
    """What answers in the place of upstreams."""
    found: list[Hook] = []
    if chosen.map_local:
        with naming("--map-local"):
            found.append(mitm.map_local(mapping(chosen.map_local)))
    if chosen.map_remote:
        connect = stacks.connector(given)
        client = http.client(connect, tls=_tls(given, chosen)(connect))
        with naming("--map-remote"):
            found.append(mitm.map_remote(mapping(chosen.map_remote), client=client))
    if chosen.replay_strict and not chosen.replay:
        raise ConfigError("--replay-strict: expected --replay too")
    if chosen.replay:
        with naming("--replay"):
            known = [each for path in chosen.replay for each in mitm.read_har(Path(path))]
            found.append(mitm.replayed(known, strict=chosen.replay_strict))
    return found


def servers(
    given: Given, chosen: Chosen, ca: CertificateAuthority, hooks: Hooks, watch: Watch
) -> list[Server]:
    """What listens, and looks inside."""
    made = handler(given, chosen, ca, hooks, watch)
    return stacks.servers(given, made, transparent=chosen.mode == "tproxy")


def handler(given: Given, chosen: Chosen, ca: CertificateAuthority, hooks: Hooks, watch: Watch) -> Handler:
    """The front door, and what looks inside behind it."""
    _check(given, chosen)
    carry = tcp.relay(idle_timeout=given.idle_timeout)
    for each in watch.passes:
        carry = each(carry)
    options = _inside(given, chosen)
    options["carry"] = carry
    options["chunks"] = None if hooks.script is None else hooks.script.chunks
    connect = stacks.connector(given)
    layers = (*_directing(chosen), *watch.exchanges, *hooks.layers)
    if chosen.mode == "http":
        exchange = mitm.proxy(ca, *layers, connect=connect, private=given.private or None, **options)
        for layer in watch.doors:
            exchange = layer(exchange)
        return _http(given, exchange)
    relay = mitm.relay(ca, *layers, **options)
    for each in watch.relays:
        relay = each(relay)
    if chosen.mode == "socks5":
        return _socks5(given, connect, relay)
    if chosen.mode in ("transparent", "tproxy"):
        return tcp.transparent(connect=connect, relay=relay)
    if chosen.to is None:
        raise ConfigError("--mode forward: expected --to TARGET")
    return tcp.forward(chosen.to.target, connect=connect, relay=relay)


def _directing(chosen: Chosen) -> list[Hook]:
    """The layer that gives requests the scheme and the Host of a fixed target, before others see them."""
    to, host = chosen.to, chosen.host_header
    if to is None or (host is None and to.tls is None):
        return []
    origins = {scheme: http.Origin(scheme, to.target) for scheme in ("http", "https")}
    fixed = None if to.tls is None else "https" if to.tls else "http"

    @layer
    async def directed(request: Request, inner: http.Exchange) -> Response:
        if fixed is not None:
            request.scheme = fixed
        if host is not None:
            request.authority = origins[request.scheme].authority if host == "upstream" else host
        return await inner(request)

    return [directed]


def _check(given: Given, chosen: Chosen) -> None:
    guarded = chosen.mode in ("http", "socks5")
    if guarded:
        stacks.check_open(given)
    elif given.users or given.user_file is not None:
        raise ConfigError(f"--user: nobody can say who they are with --mode {chosen.mode}")
    for option, value in (("--to", chosen.to), ("--host-header", chosen.host_header)):
        if value is not None and chosen.mode != "forward":
            raise ConfigError(f"{option}: expected --mode forward too")
    if chosen.mode in ("transparent", "tproxy") and sys.platform != "linux":
        raise ConfigError(f"--mode {chosen.mode}: it needs Linux, and this is {sys.platform}")
    if chosen.pass_untrusted and (chosen.late or chosen.replay_strict):
        other = "--late" if chosen.late else "--replay-strict"
        raise ConfigError(f"--pass-untrusted: with {other} upstreams are not seen first")


def _http(given: Given, exchange: http.Exchange) -> Handler:
    if known := stacks.users(given):
        exchange = http.proxy_auth(known)(exchange)
    return stack(_server(given), exchange)


def _socks5(given: Given, connect: Connector, relay: Relay) -> Handler:
    known = stacks.users(given)
    with naming("--user" if given.users else "--user-file"):
        return socks5.server(
            auth=known or None,
            connect=mitm.late(connect),
            relay=relay,
            private=given.private or None,
            handshake_timeout=given.handshake_timeout,
        )


def _server(given: Given) -> ServerLayer:
    return http.server(
        first_byte_timeout=given.first_byte_timeout,
        head_timeout=given.handshake_timeout,
        body_timeout=given.idle_timeout,
        idle_timeout=given.idle_timeout,
        write_timeout=given.idle_timeout,
        error_page=error_page,
    )


def _tls(given: Given, chosen: Chosen) -> TLSMaker:
    """What puts TLS towards upstreams over a connector."""
    if chosen.insecure and chosen.upstream_ca is not None:
        raise ConfigError("--upstream-ca: nothing is verified with --insecure")
    if chosen.upstream_key is not None and chosen.upstream_cert is None:
        raise ConfigError("--upstream-key: a key goes with a certificate: expected --upstream-cert too")
    if chosen.upstream_cert is not None:
        with naming(
            "--upstream-cert" if chosen.upstream_key is None else "--upstream-cert and --upstream-key"
        ):
            tls.connect(insecure=True, cert=chosen.upstream_cert, key=chosen.upstream_key)
    keylog = stacks.keylog_file(given)
    with naming("--upstream-ca"):
        maker = partial(
            tls.connect,
            ca=chosen.upstream_ca,
            cert=chosen.upstream_cert,
            key=chosen.upstream_key,
            insecure=chosen.insecure,
            handshake_timeout=given.handshake_timeout,
            keylog=keylog,
        )
        maker()  # what cannot be read is told under its option's name
    return maker


def _inside(given: Given, chosen: Chosen) -> mitm.Options:
    """The options of what looks inside."""
    return {
        "rules": _rules(chosen),
        "default": "pass" if chosen.intercept else "intercept",
        "pinning": _pinning(chosen),
        "connect_first": not chosen.late and not chosen.replay_strict,
        "bad_upstream": "pass" if chosen.pass_untrusted else "page",
        "tls": _tls(given, chosen),
        "upstream_tls": None if chosen.to is None else chosen.to.tls,
        "revoked": chosen.revoke,
        "server_first": chosen.server_first,
        "handshake_timeout": given.handshake_timeout,
        "server": _server(given),
        "keylog": stacks.keylog_file(given),
    }


def _rules(chosen: Chosen) -> list[mitm.Rule]:
    made = [each.rule(mitm.block) for each in chosen.block]
    made += [each.rule(mitm.passthrough) for each in chosen.passed]
    return made + [each.rule(mitm.intercept) for each in chosen.intercept]


class ToldPinning(mitm.Pinning):
    """Tells of what it has learned."""

    __slots__ = ()

    def rejected(self, client: str, host: str) -> None:
        before = self.action(client, host)
        super().rejected(client, host)
        if before is None and (now := self.action(client, host)) is not None:
            what = "passed through" if now == "pass" else "blocked"
            log.info("%s refuses our certificate for %s: it is %s from now on", client, host, what)


def _pinning(chosen: Chosen) -> mitm.Pinning | None:
    if chosen.pin_after is None:
        if chosen.pin_for is not None or chosen.pinned is not None:
            raise ConfigError(
                f"--{'pin-for' if chosen.pin_for is not None else 'pinned'}: expected --pin-after too"
            )
        return None
    return ToldPinning(chosen.pin_after, chosen.pin_for or 3600.0, then=chosen.pinned or "pass")
