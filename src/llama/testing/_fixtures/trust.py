"""TLS to upstreams: the CAs that a test's proxy trusts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.testing._fixtures.proxy_env import authorities
from llama.tls import connect as tls_connect

Given = str | os.PathLike[str] | bool | None


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class DeferredTLS:
    """Creates its TLS connector on first use: most tests need none, and loading CA certificates is slow."""

    inner: Connector
    verify: str | bool
    made: list[Connector] = field(default_factory=list[Connector])

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "tls.connect()"

    async def __call__(self, target: Target, /) -> Stream:
        if not self.made:
            ca = self.verify if isinstance(self.verify, str) else None
            self.made.append(tls_connect(self.inner, ca=ca, insecure=self.verify is False))
        return await self.made[0](target)


def trusting(upstream_ca: Given, folder: Path) -> Callable[[Connector], Connector]:
    """Return a factory of TLS connectors. By default they trust the CAs that this process trusts.

    Call it before the environment variables make the proxy's CA the only trusted one.
    """
    verify: str | bool
    if upstream_ca is None or upstream_ca is True:
        found = authorities(folder)
        verify = found if found is True else str(found)
    elif upstream_ca is False:
        verify = False
    else:
        verify = os.fspath(upstream_ca)
        if not os.path.exists(verify):
            raise ConfigError(f"llama_proxy(upstream_ca={verify!r}): no such file or directory")
    return lambda connect: DeferredTLS(connect, verify)
