"""What becomes of a connection: it is looked into, passed through or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from llama._errors import ConfigError
from llama._extensions import Extensions
from llama._server import Peer
from llama._stack import factory
from llama._target import Target
from llama.layers._peer_key import packed
from llama.tcp._networks import Network, Networks
from llama.tcp._target_set import TargetSet

Action: TypeAlias = Literal["intercept", "pass", "block"]
ACTIONS = ("intercept", "pass", "block")


@dataclass(frozen=True, slots=True)
class Process:
    """The process that a connection comes from, where a layer before has found out and set it."""

    pid: int
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a connection when it is decided what becomes of it."""

    target: Target
    server_name: str | None
    """The name in the client's TLS hello; None where it named none or speaks no TLS."""
    extensions: Extensions
    named: str | None = None
    """The host in a request's Host field; None where none was looked at."""

    @property
    def host(self) -> str:
        """The host that a request named, or else the server name, or else the target's host."""
        return self.named or self.server_name or self.target.host

    @property
    def client(self) -> Peer | None:
        """The client's address."""
        return self.extensions.get(Peer)

    @property
    def process(self) -> Process | None:
        """The process that the client is, where that is known."""
        return self.extensions.get(Process)


Rule: TypeAlias = Callable[[Asked], Action | None]
"""What becomes of a connection; None leaves it to the next rule."""


@dataclass(frozen=True, slots=True, repr=False)
class Match:
    """A rule made of patterns: every kind that is given has to match."""

    action: Action
    hosts: TargetSet | None
    sni: TargetSet | None
    clients: Networks | None
    processes: tuple[str, ...]

    def __repr__(self) -> str:
        name = "passthrough" if self.action == "pass" else self.action
        return f"mitm.{name}({self.hosts or self.sni or ''})"

    def __call__(self, asked: Asked, /) -> Action | None:
        return self.action if self._matches(asked) else None

    @property
    def needs_hello(self) -> bool:
        """Whether the client's hello may yet make it match."""
        return self.hosts is not None or self.sni is not None

    def _matches(self, asked: Asked) -> bool:
        name, port = asked.server_name, asked.target.port
        if self.sni is not None and (name is None or not self.sni.holds(name, port)):
            return False
        if self.hosts is not None and not self._is_host(self.hosts, asked):
            return False
        if self.clients is not None:
            peer = asked.client
            if peer is None or peer.host not in self.clients:
                return False
        return not self.processes or _is_process(asked.process, self.processes)

    def _is_host(self, hosts: TargetSet, asked: Asked) -> bool:
        names = (asked.named, asked.server_name)
        return any(name and hosts.holds(name, asked.target.port) for name in names) or asked.target in hosts


def _is_process(process: Process | None, patterns: Sequence[str]) -> bool:
    if process is None:
        return False
    return any(fnmatchcase(process.name, each) or fnmatchcase(process.path, each) for each in patterns)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in order, and what happens where none decides."""

    rules: tuple[Rule, ...]
    default: Action

    @property
    def matter(self) -> bool:
        """Whether anything but the usual can come of them."""
        return bool(self.rules) or self.default != "intercept"

    def decide(self, asked: Asked) -> Action:
        """What becomes of a connection."""
        for rule in self.rules:
            action = rule(asked)
            if action is not None:
                if action not in ACTIONS:
                    raise ConfigError(f"the rule {rule!r} said {action!r}: expected one of {ACTIONS} or None")
                return action
        return self.default

    def decide_early(self, asked: Asked) -> Action | None:
        """The same before the client has said anything; None where what it says may matter."""
        for rule in self.rules:
            if not isinstance(rule, Match):
                return None
            action = rule(asked)
            if action is not None:
                return action
            # A client that asked for a host by name names the same one in its hello or its Host.
            if rule.sni is not None or (rule.hosts is not None and packed(asked.target.host) is not None):
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
        TargetSet(hosts) if hosts else None,
        TargetSet(sni) if sni else None,
        Networks(clients) if clients else None,
        tuple(processes),
    )


@factory("mitm.intercept", "rule")
def intercept(
    *hosts: str, sni: Iterable[str] = (), clients: Iterable[Network] = (), processes: Iterable[str] = ()
) -> Rule:
    """Look into connections to these hosts: `HOST`, `*.DOMAIN`, `NETWORK` or `*`, each with `:PORT` or without.

    A host is the target's, the name in the client's TLS hello, or the Host of plain HTTP/1 where an address was
    asked for; `sni` is matched with the name in the hello alone. `clients` are networks, `processes` patterns such
    as `curl` or `*/bin/python3*` for the `Process` in the connection's extensions. What is given has to match all
    together; without anything it matches every connection.

    Rules are asked for each connection, and again for a request in it that names another host: one that is to be
    passed through then leaves out the layers.
    """
    return _match("intercept", hosts, sni, clients, processes)


@factory("mitm.passthrough", "rule")
def passthrough(
    *hosts: str, sni: Iterable[str] = (), clients: Iterable[Network] = (), processes: Iterable[str] = ()
) -> Rule:
    """Pass connections through untouched; the patterns are those of `mitm.intercept`."""
    return _match("pass", hosts, sni, clients, processes)


@factory("mitm.block", "rule")
def block(
    *hosts: str, sni: Iterable[str] = (), clients: Iterable[Network] = (), processes: Iterable[str] = ()
) -> Rule:
    """Refuse connections: 403 for HTTP, the alert access_denied for TLS; the patterns are `mitm.intercept`'s."""
    return _match("block", hosts, sni, clients, processes)
