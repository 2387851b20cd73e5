"""Where a connection comes from and goes to."""

from __future__ import annotations

import contextlib
import socket

from llama._extensions import Extensions
from llama._server import Local


def local_address(extensions: Extensions) -> Local | None:
    """The address that a client connected to; asked of the socket where nobody has set it."""
    local = extensions.get(Local)
    sock = None if local is not None else extensions.get(socket.socket)
    if sock is not None:
        with contextlib.suppress(OSError):  # closed by now
            name = sock.getsockname()
            local = Local(*name[:2]) if isinstance(name, tuple) else Local(str(name), 0)
            extensions.set(local)
    return local
