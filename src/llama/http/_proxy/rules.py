"""Access rules for the targets of a forward proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeAlias

from llama._core.errors import RefusedError
from llama._core.extensions import Extensions
from llama._core.target import Target
from llama.http._messages.message import Request
from llama.tcp._policy.address_filter import restrict, restrict_for_client
from llama.tcp._policy.target_patterns import TargetPatterns

TargetRule: TypeAlias = Callable[[Request, Target], bool | Awaitable[bool]]
"""A function, async or not, that returns whether a request may reach a target."""

_NOBODY = Extensions()


@dataclass(frozen=True, slots=True)
class Rules:
    """The allowed and denied targets, a custom rule, and the policy for non-public addresses."""

    allow: TargetPatterns | None
    deny: TargetPatterns | None
    rule: TargetRule | None
    private: bool | None

    async def check_target(self, request: Request, target: Target) -> Target:
        """Return the target restricted to permitted addresses; raise RefusedError if it is not allowed."""
        target = self.check_address(request, target)
        if self.rule is not None:
            verdict = self.rule(request, target)
            if not (await verdict if isawaitable(verdict) else verdict):
                raise RefusedError(f"the rule rejects {target}")
        return target

    def check_address(self, request: Request, target: Target) -> Target:
        """Apply everything but the custom rule, as `check_target` does."""
        if self.allow is not None and target not in self.allow:
            raise RefusedError(f"{target} is not an allowed target")
        if self.deny is not None:
            target = _not_denied(self.deny, target)
        client = request._connection_extensions
        return restrict_for_client(target, client if client is not None else _NOBODY, self.private)


def _not_denied(deny: TargetPatterns, target: Target) -> Target:
    if target in deny:
        raise RefusedError(f"{target} is denied")
    if not deny.has_networks(target.port):
        return target
    holds, port = deny.matches, target.port
    return restrict(target, lambda address: not holds(address, port), f"denied: {deny}")
