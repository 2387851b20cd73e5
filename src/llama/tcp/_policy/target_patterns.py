"""Sets of targets for rules: names, networks and ports."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from llama._core.errors import ConfigError
from llama._core.target import Target, split_address
from llama.layers._hostname import normalized_host
from llama.layers._peer_key import packed_address
from llama.tcp._policy.networks import Networks


class _Hosts:
    """A set of hosts: all, by name, by parent domain, or by network."""

    __slots__ = ("all", "domains", "names", "networks")

    def __init__(self) -> None:
        self.all = False
        self.names: set[str] = set()
        self.domains: set[str] = set()
        self.networks = Networks(())

    def add(self, host: str) -> None:
        if host in ("", "*"):
            self.all = True
        elif host.startswith("*."):
            self.domains.add(_normalize_name(host[2:]))
        elif _is_network(host):
            self.networks = Networks((*self.networks.names, host))
        else:
            self.names.add(_normalize_name(host))

    def __contains__(self, host: str) -> bool:
        if self.all:
            return True
        if packed_address(host) is not None:
            return host in self.networks
        name = _normalize_name(host)
        return name in self.names or any(parent in self.domains for parent in _parent_domains(name))


def _normalize_name(host: str) -> str:
    return host.lower() if host.startswith("unix:") else normalized_host(host)


def _parent_domains(name: str) -> Iterable[str]:
    while name:
        _, _, name = name.partition(".")
        yield name


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        if "/" in text:
            raise ConfigError(
                f"{text!r} is not a network: expected one such as 192.0.2.0/24 or 2001:db8::/32"
            ) from None
        return False
    return True


class TargetPatterns:
    """Targets by patterns: `a.example`, `*.a.example` (its subdomains), `192.0.2.0/24`, `[::1]`, `*`.

    Each may end in `:PORT`. Names are matched as clients send them: `in` does not resolve them.
    """

    __slots__ = ("_by_port", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._by_port: dict[int | None, _Hosts] = {}
        for pattern in self.patterns:
            host, port = _split(pattern)
            self._by_port.setdefault(port, _Hosts()).add(host)

    def __contains__(self, target: Target) -> bool:
        return self.matches(target.host, target.port)

    def matches(self, host: str, port: int) -> bool:
        """Whether a host and port are in the set."""
        found = self._by_port
        return (port in found and host in found[port]) or (None in found and host in found[None])

    def has_networks(self, port: int) -> bool:
        """Whether a network applies to a port, so that names have to be resolved."""
        return any(self._by_port[each].networks.names for each in (port, None) if each in self._by_port)

    def __str__(self) -> str:
        return ", ".join(self.patterns)


def _split(pattern: str) -> tuple[str, int | None]:
    if pattern.count(":") > 1 and not pattern.startswith("["):  # an IPv6 address or network alone
        if not _is_network(pattern):
            raise ConfigError(f"{pattern!r} is not a target: write an IPv6 address with a port as [::1]:443")
        return pattern, None
    host, port = split_address(pattern, 0)
    return host, port or None
