"""The Unix-domain connector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.stack import layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.tcp._connect import connect as tcp_connect


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class UnixConnect:
    """Connects to one socket path, and ignores the target's name."""

    inner: Connector
    path: Target

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"unix.connect({self.path.host[5:]})"

    async def __call__(self, target: Target, /) -> Stream:
        return await self.inner(self.path.fork(target.extensions))


@layer_factory("unix.connect", "connector")
def connect(path: str, *, timeout: float | None = None) -> Connector:
    """Return a connector to a Unix-domain socket; `timeout` in seconds. It raises UnreachableError or TimeoutError."""
    return UnixConnect(tcp_connect(timeout=timeout), Target(f"unix:{path}", 0))
