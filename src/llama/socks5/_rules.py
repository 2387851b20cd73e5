"""Access rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeAlias

from llama._core.errors import RefusedError
from llama._core.server import User
from llama._core.target import Target
from llama.tcp._policy.address_filter import add_filter
from llama.tcp._policy.target_patterns import TargetPatterns

Rule: TypeAlias = Callable[[User | None, Target], bool | Awaitable[bool]]
"""Returns whether a user (None: unauthenticated) may reach a target; may be async."""


async def check(rule: Rule | None, user: User | None, target: Target) -> None:
    """Apply a rule; raises Refused."""
    if rule is None:
        return
    verdict = rule(user, target)
    if not (await verdict if isawaitable(verdict) else verdict):
        who = f"user {str(user)!r}" if user is not None else "the rules"
        raise RefusedError(f"{target} is not allowed {'for' if user is not None else 'by'} {who}")


@dataclass(frozen=True, slots=True, eq=False)
class _AllowTargets:
    targets: TargetPatterns

    def __call__(self, user: User | None, target: Target) -> bool:
        return target in self.targets


@dataclass(frozen=True, slots=True, eq=False)
class _DenyTargets:
    targets: TargetPatterns

    def __call__(self, user: User | None, target: Target) -> bool:
        if target in self.targets:
            return False
        if self.targets.has_networks(target.port):
            holds, port = self.targets.matches, target.port
            add_filter(target, lambda address: not holds(address, port), f"denied: {self.targets}")
        return True


@dataclass(frozen=True, slots=True, eq=False)
class _PerUser:
    rules: Mapping[str, Rule]
    default: Rule | None

    def __call__(self, user: User | None, target: Target) -> bool | Awaitable[bool]:
        rule = self.rules.get(user, self.default) if user is not None else self.default
        return rule is not None and rule(user, target)


def allow(*targets: str) -> Rule:
    """Allow only these targets: `a.example`, `*.a.example` (its subdomains), `192.0.2.0/24`, `*`.

    Each may end in `:PORT`. A name is matched as the client sends it, and a network matches only addresses that the
    client sends, not the addresses that a name resolves to. Raises ConfigError for an invalid pattern.

        socks5.server(rules=socks5.allow("*.example.com:443"))
    """
    return _AllowTargets(TargetPatterns(targets))


def deny(*targets: str) -> Rule:
    """Deny these targets and allow all others; the patterns are those of `allow`.

    A network also matches the addresses that a name resolves to, if this process resolves it and not another proxy.

        socks5.server(rules=socks5.deny("*:25", "10.0.0.0/8"))
    """
    return _DenyTargets(TargetPatterns(targets))


def per_user(rules: Mapping[str, Rule], *, default: Rule | None = None) -> Rule:
    """Apply a rule per user name; `default` is the rule of other users, by default no access.

    socks5.server(auth=users, rules=socks5.per_user({"john": socks5.allow("*:443")}))
    """
    return _PerUser(dict(rules), default)
