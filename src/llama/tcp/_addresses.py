"""The local address of a connection."""

from __future__ import annotations

import contextlib
import socket

from llama._core.extensions import Extensions
from llama._core.server import LocalAddress


def local_address(extensions: Extensions) -> LocalAddress | None:
    """Return the address that a client connected to, from the extensions or else from the socket."""
    local = extensions.get(LocalAddress)
    sock = None if local is not None else extensions.get(socket.socket)
    if sock is not None:
        with contextlib.suppress(OSError):  # already closed
            name = sock.getsockname()
            local = LocalAddress(*name[:2]) if isinstance(name, tuple) else LocalAddress(str(name), 0)
            extensions.set(local)
    return local
