"""Authentication with user names and passwords."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from inspect import isawaitable
from typing import TypeAlias

from llama._core.errors import ConfigError
from llama.socks5._wire.socks5 import encode_credentials

Auth: TypeAlias = Mapping[str, str] | Callable[[str, str], bool | Awaitable[bool]]
"""A mapping of users to passwords, or a function that checks a user name and a password; may be async."""

Check: TypeAlias = Callable[[str, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class _StaticAuth:
    """Passwords by user, compared in constant time."""

    digests: Mapping[str, bytes]

    async def __call__(self, user: str, password: str) -> bool:
        known = self.digests.get(user)
        same = compare_digest(_digest(password), known or bytes(32))
        return same and known is not None


@dataclass(frozen=True, slots=True, eq=False)
class _CallbackAuth:
    function: Callable[[str, str], bool | Awaitable[bool]]

    async def __call__(self, user: str, password: str) -> bool:
        verdict = self.function(user, password)
        return await verdict if isawaitable(verdict) else verdict


def _digest(password: str) -> bytes:
    return sha256(password.encode(errors="surrogateescape")).digest()


def checker(auth: Auth | None) -> Check | None:
    """Return a function that checks a name and a password; ConfigError for credentials that no client can send."""
    if auth is None or callable(auth):
        return None if auth is None else _CallbackAuth(auth)
    if not auth:
        raise ConfigError(
            "socks5.server(auth={}) rejects every client: expected users, or None for no authentication"
        )
    for user, password in auth.items():
        try:
            encode_credentials(user, password)
        except ValueError as error:
            raise ConfigError(f"socks5.server(auth=): {user[:40]!r} can never get in: {error}") from None
    return _StaticAuth({user: _digest(password) for user, password in auth.items()})
