"""Rules that decide whether a connection is intercepted, passed through or blocked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from llama._core.errors import ConfigError
from llama._core.extensions import Extensions
from llama._core.server import PeerAddress
from llama._core.stack import layer_factory
from llama._core.target import Target
from llama.layers._peer_key import packed_address
from llama.tcp._policy.networks import Network, Networks
from llama.tcp._policy.target_patterns import TargetPatterns

Action: TypeAlias = Literal["intercept", "passthrough", "block"]
ACTIONS = ("intercept", "passthrough", "block")


@dataclass(frozen=True, slots=True)
class Process:
    """The process that a connection comes from, if an outer layer has found it and set it in the extensions."""

    pid: int
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """The facts about a connection that rules decide by."""

    target: Target
    server_name: str | None
    """The server name (SNI) in the ClientHello; None if it has none or the connection is not TLS."""
    extensions: Extensions
    named: str | None = None
    """The host in a request's Host field; None if none was read."""

    @property
    def host(self) -> str:
        """The host in the Host field, else the server name, else the target's host."""
        return self.named or self.server_name or self.target.host

    @property
    def client(self) -> PeerAddress | None:
        """The client's address."""
        return self.extensions.get(PeerAddress)

    @property
    def process(self) -> Process | None:
        """The client's process, if known."""
        return self.extensions.get(Process)


Rule: TypeAlias = Callable[[ConnectionInfo], Action | None]
"""A function that returns the action for a connection, or None to leave it to the next rule."""


@dataclass(frozen=True, slots=True, repr=False)
class Match:
    """A rule made of patterns: every kind that is given must match."""

    action: Action
    hosts: TargetPatterns | None
    sni: TargetPatterns | None
    clients: Networks | None
    processes: tuple[str, ...]

    def __repr__(self) -> str:
        name = "passthrough" if self.action == "passthrough" else self.action
        return f"mitm.{name}({self.hosts or self.sni or ''})"

    def __call__(self, asked: ConnectionInfo, /) -> Action | None:
        return self.action if self._matches(asked) else None

    @property
    def needs_hello(self) -> bool:
        """Whether the match may depend on the ClientHello."""
        return self.hosts is not None or self.sni is not None

    def _matches(self, asked: ConnectionInfo) -> bool:
        name, port = asked.server_name, asked.target.port
        if self.sni is not None and (name is None or not self.sni.matches(name, port)):
            return False
        if self.hosts is not None and not self._is_host(self.hosts, asked):
            return False
        if self.clients is not None:
            peer = asked.client
            if peer is None or peer.host not in self.clients:
                return False
        return not self.processes or _is_process(asked.process, self.processes)

    def _is_host(self, hosts: TargetPatterns, asked: ConnectionInfo) -> bool:
        names = (asked.named, asked.server_name)
        return any(name and hosts.matches(name, asked.target.port) for name in names) or asked.target in hosts


def _is_process(process: Process | None, patterns: Sequence[str]) -> bool:
    if process is None:
        return False
    return any(fnmatchcase(process.name, each) or fnmatchcase(process.path, each) for each in patterns)


@dataclass(frozen=True, slots=True)
class Rules:
    """An ordered list of rules, and the default action if none decides."""

    rules: tuple[Rule, ...]
    default: Action

    @property
    def need_decision(self) -> bool:
        """Whether any connection may get an action other than `intercept`."""
        return bool(self.rules) or self.default != "intercept"

    def decide(self, asked: ConnectionInfo) -> Action:
        """Return the action for a connection. Raises ConfigError for an invalid result of a rule."""
        for rule in self.rules:
            action = rule(asked)
            if action is not None:
                if action not in ACTIONS:
                    raise ConfigError(
                        f"the rule {rule!r} returned {action!r}: expected one of {ACTIONS} or None"
                    )
                return action
        return self.default

    def decide_early(self, asked: ConnectionInfo) -> Action | None:
        """Decide before the client has sent anything; None if the action may depend on its first bytes."""
        for rule in self.rules:
            if not isinstance(rule, Match):
                return None
            action = rule(asked)
            if action is not None:
                return action
            # A target given by name is taken to be the host in the client's hello or Host field too.
            if rule.sni is not None or (
                rule.hosts is not None and packed_address(asked.target.host) is not None
            ):
                return None
        return self.default if self.default != "intercept" else None


def _match(
    action: Action,
    hosts: tuple[str, ...],
    sni: Iterable[str],
    clients: Iterable[Network],
    processes: Iterable[str],
) -> Rule:
    for name, given in (("sni", sni), ("clients", clients), ("processes", processes)):
        if isinstance(given, str):
            raise ConfigError(f"{name}={given!r}: expected a list")
    sni, clients = tuple(sni), tuple(clients)
    return Match(
        action,
        TargetPatterns(hosts) if hosts else None,
        TargetPatterns(sni) if sni else None,
        Networks(clients) if clients else None,
        tuple(processes),
    )


@layer_factory("mitm.intercept", "rule")
def intercept(
    *hosts: str, sni: Iterable[str] = (), clients: Iterable[Network] = (), processes: Iterable[str] = ()
) -> Rule:
    """Intercept connections to these hosts: `HOST`, `*.DOMAIN`, `NETWORK` or `*`, each optionally with `:PORT`.

    `hosts` are matched against the target's host, the server name (SNI), and the Host of plain HTTP/1 if the
    target is an address; `sni` only against the server name. `clients` are networks; `processes` are patterns
    such as `curl` or `*/bin/python3*` for the `Process` in the connection's extensions. All the given kinds must
    match; a rule without patterns matches every connection.

    Rules are evaluated for each connection, and again for a request in it with a different host: if that is to be
    passed through, the request skips the layers.
    """
    return _match("intercept", hosts, sni, clients, processes)


@layer_factory("mitm.passthrough", "rule")
def passthrough(
    *hosts: str, sni: Iterable[str] = (), clients: Iterable[Network] = (), processes: Iterable[str] = ()
) -> Rule:
    """Pass connections through unchanged; the patterns are those of `mitm.intercept`."""
    return _match("passthrough", hosts, sni, clients, processes)


@layer_factory("mitm.block", "rule")
def block(
    *hosts: str, sni: Iterable[str] = (), clients: Iterable[Network] = (), processes: Iterable[str] = ()
) -> Rule:
    """Refuse connections: 403 for HTTP, the alert access_denied for TLS. The patterns are those of `mitm.intercept`."""
    return _match("block", hosts, sni, clients, processes)
