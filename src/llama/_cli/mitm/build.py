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
    ConnectionHandler,
    Connector,
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
from llama._cli.common_options import CommonOptions
from llama._cli.mitm.background_tasks import BackgroundTasks
from llama._cli.mitm.observers import Observers
from llama._cli.mitm.options import MitmOptions
from llama._cli.mitm.param_types import mapping
from llama._cli.mitm.script.script import Script
from llama._cli.stacks import option_errors
from llama.http import Request, Response
from llama.mitm._har.file import HarFile
from llama.mitm._pages import error_page
from llama.mitm._settings import ServerLayer, TLSMaker
from llama.tls import CertificateAuthority

log = logging.getLogger("llama.mitm")
Hook: TypeAlias = Middleware[Request, Response]


def authority_folder(chosen: MitmOptions) -> Path:
    """Where the authority is kept."""
    return Path(chosen.ca) if chosen.ca else platformdirs.user_data_path("llama", appauthor=False) / "ca"


def authority(folder: Path) -> CertificateAuthority:
    """The authority, made when there is none."""
    with option_errors("--ca"):
        try:
            return CertificateAuthority.open(folder)
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror or error}") from None


def authority_of_a_command(chosen: MitmOptions) -> CertificateAuthority:
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


def hooks(given: CommonOptions, chosen: MitmOptions) -> Hooks:
    """The hooks that were asked for."""
    layers = [*_recorders(chosen), *_fault_layers(chosen)]
    if chosen.script is None:
        return Hooks((*layers, *_mock_layers(given, chosen)))
    with option_errors("--script"):
        script = Script(chosen.script)
    return Hooks((*layers, BackgroundTasks(script.watch), script.layer, *_mock_layers(given, chosen)), script)


def _recorders(chosen: MitmOptions) -> list[Hook]:
    """What records, and what makes the file when it begins: no exchanges are a whole file too."""
    if chosen.har is None:
        if chosen.har_limit is not None:
            raise ConfigError("--har-limit: expected --har too")
        return []
    path = Path(chosen.har)
    recorder = mitm.record(path, max_body=chosen.har_limit)
    return [recorder, BackgroundTasks(begin=partial(_begin_recording, path))]


def _begin_recording(path: Path) -> None:
    try:
        HarFile(path).create()
    except OSError as error:
        raise ConfigError(f"--har: {path}: {error.strerror or error}") from None


def _fault_layers(chosen: MitmOptions) -> list[Hook]:
    """What makes things slow, or wrong."""
    slow = (
        [] if chosen.throttle is None else [mitm.throttle(download=chosen.throttle, upload=chosen.throttle)]
    )
    return slow if chosen.faults is None else [*slow, chosen.faults]


def _mock_layers(given: CommonOptions, chosen: MitmOptions) -> list[Hook]:
    """What answers in the place of upstreams."""
    found: list[Hook] = []
    if chosen.map_local:
        with option_errors("--map-local"):
            found.append(mitm.map_local(mapping(chosen.map_local)))
    if chosen.map_remote:
        connect = stacks.connector(given)
        client = http.client(connect, tls=_tls(given, chosen)(connect))
        with option_errors("--map-remote"):
            found.append(mitm.map_remote(mapping(chosen.map_remote), client=client))
    if chosen.replay_strict and not chosen.replay:
        raise ConfigError("--replay-strict: expected --replay too")
    if chosen.replay_repeat and not chosen.replay_strict:
        raise ConfigError("--replay-repeat: expected --replay-strict too")
    if chosen.replay:
        with option_errors("--replay"):
            known = [each for path in chosen.replay for each in mitm.read_har(Path(path))]
            found.append(
                mitm.replay_layer(known, strict=chosen.replay_strict, repeat=chosen.replay_repeat or None)
            )
    return found


def servers(
    given: CommonOptions, chosen: MitmOptions, ca: CertificateAuthority, hooks: Hooks, watch: Observers
) -> list[Server]:
    """What listens, and looks inside."""
    made = handler(given, chosen, ca, hooks, watch)
    return stacks.servers(given, made, transparent=chosen.mode == "tproxy")


def handler(
    given: CommonOptions, chosen: MitmOptions, ca: CertificateAuthority, hooks: Hooks, watch: Observers
) -> ConnectionHandler:
    """The front door, and what looks inside behind it."""
    _check(given, chosen)
    carry = tcp.relay(idle_timeout=given.idle_timeout)
    for each in watch.passthroughs:
        carry = each(carry)
    options = _inside(given, chosen)
    options["passthrough_relay"] = carry
    options["on_chunk"] = None if hooks.script is None else hooks.script.on_chunk
    connect = stacks.connector(given)
    layers = (*_directing(chosen), *watch.exchanges, *hooks.layers)
    if chosen.mode == "http":
        exchange = mitm.proxy(ca, *layers, connect=connect, private=given.allow_private or None, **options)
        for layer in watch.front_doors:
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


def _directing(chosen: MitmOptions) -> list[Hook]:
    """The layer that gives requests the scheme and the Host of a fixed target, before others see them."""
    to, host = chosen.to, chosen.host_header
    if to is None or (host is None and to.tls is None):
        return []
    origins = {scheme: http.Origin(scheme, to.target) for scheme in ("http", "https")}
    fixed = None if to.tls is None else "https" if to.tls else "http"

    @layer
    async def directed(request: Request, inner: http.RequestHandler) -> Response:
        if fixed is not None:
            request.scheme = fixed
        if host is not None:
            request.authority = origins[request.scheme].authority if host == "upstream" else host
        return await inner(request)

    return [directed]


def _check(given: CommonOptions, chosen: MitmOptions) -> None:
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
    if chosen.pass_untrusted and (chosen.lazy_upstream or chosen.replay_strict):
        other = "--lazy-upstream" if chosen.lazy_upstream else "--replay-strict"
        raise ConfigError(f"--pass-untrusted: with {other} upstreams are not seen first")


def _http(given: CommonOptions, exchange: http.RequestHandler) -> ConnectionHandler:
    if known := stacks.users(given):
        exchange = http.proxy_auth(known)(exchange)
    return stack(_server(given), exchange)


def _socks5(given: CommonOptions, connect: Connector, relay: Relay) -> ConnectionHandler:
    known = stacks.users(given)
    with option_errors("--user" if given.users else "--user-file"):
        return socks5.server(
            auth=known or None,
            connect=mitm.lazy_connect(connect),
            relay=relay,
            private=given.allow_private or None,
            handshake_timeout=given.handshake_timeout,
        )


def _server(given: CommonOptions) -> ServerLayer:
    return http.server(
        first_byte_timeout=given.first_byte_timeout,
        head_timeout=given.handshake_timeout,
        body_timeout=given.idle_timeout,
        idle_timeout=given.idle_timeout,
        write_timeout=given.idle_timeout,
        error_handler=error_page,
    )


def _tls(given: CommonOptions, chosen: MitmOptions) -> TLSMaker:
    """What puts TLS towards upstreams over a connector."""
    if chosen.insecure and chosen.upstream_ca is not None:
        raise ConfigError("--upstream-ca: nothing is verified with --insecure")
    if chosen.upstream_key is not None and chosen.upstream_cert is None:
        raise ConfigError("--upstream-key: a key goes with a certificate: expected --upstream-cert too")
    if chosen.upstream_cert is not None:
        with option_errors(
            "--upstream-cert" if chosen.upstream_key is None else "--upstream-cert and --upstream-key"
        ):
            tls.connect(insecure=True, cert=chosen.upstream_cert, key=chosen.upstream_key)
    keylog = stacks.keylog_file(given)
    with option_errors("--upstream-ca"):
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


def _inside(given: CommonOptions, chosen: MitmOptions) -> mitm.Options:
    """The options of what looks inside."""
    return {
        "rules": _rules(chosen),
        "default": "passthrough" if chosen.intercept else "intercept",
        "pinning": _pinning(chosen),
        "connect_upstream_first": not chosen.lazy_upstream and not chosen.replay_strict,
        "on_tls_error": "passthrough" if chosen.pass_untrusted else "error_page",
        "tls": _tls(given, chosen),
        "upstream_tls": None if chosen.to is None else chosen.to.tls,
        "revoked_fingerprints": chosen.revoke,
        "server_first_timeout": chosen.server_first_timeout,
        "handshake_timeout": given.handshake_timeout,
        "server": _server(given),
        "keylog": stacks.keylog_file(given),
    }


def _rules(chosen: MitmOptions) -> list[mitm.Rule]:
    made = [each.rule(mitm.block) for each in chosen.block]
    made += [each.rule(mitm.passthrough) for each in chosen.passthrough]
    return made + [each.rule(mitm.intercept) for each in chosen.intercept]


class LoggingPinning(mitm.Pinning):
    """Tells of what it has learned."""

    __slots__ = ()

    def rejected(self, client: str, host: str) -> None:
        before = self.action_for(client, host)
        super().rejected(client, host)
        if before is None and (now := self.action_for(client, host)) is not None:
            what = "passed through" if now == "passthrough" else "blocked"
            log.info("%s refuses our certificate for %s: it is %s from now on", client, host, what)


def _pinning(chosen: MitmOptions) -> mitm.Pinning | None:
    if chosen.pin_after is None:
        if chosen.pin_for is not None or chosen.pinned_action is not None:
            raise ConfigError(
                f"--{'pin-for' if chosen.pin_for is not None else 'pinned-action'}: expected --pin-after too"
            )
        return None
    return LoggingPinning(
        chosen.pin_after, chosen.pin_for or 3600.0, action=chosen.pinned_action or "passthrough"
    )
