"""Runs an example as it stands, but for its ports: `runner.py REPORT_FD FROM=TO,... EXAMPLE`.

The example's text, its imports and everything below it are the real ones. Only `bind` is led to a free port
instead of the one that the text names, `connect` to where the test has put the other side, and each port that
is listened on is reported as a line `NAMED REAL`. Two runs then never fight over a port.
"""

import os
import runpy
import socket
import sys
from typing import Any, TypeAlias

Address: TypeAlias = "tuple[Any, ...] | str | bytes"

_bind, _listen = socket.socket.bind, socket.socket.listen
_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


class Ports:
    """Which real port stands for a named one."""

    def __init__(self, report: int, elsewhere: dict[int, int]) -> None:
        self.report = report
        self.elsewhere = elsewhere
        self.bound: dict[int, int] = {}

    def lead(self, address: Address) -> Address:
        """The address to connect to."""
        if not isinstance(address, tuple):
            return address
        named = int(address[1])
        return (address[0], self.elsewhere.get(named, self.bound.get(named, named)), *address[2:])

    def bind(self, sock: socket.socket, address: Address) -> None:
        if not isinstance(address, tuple) or not address[1]:
            _bind(sock, address)
            return
        named = int(address[1])
        _bind(sock, (address[0], self.bound.get(named, 0), *address[2:]))
        self.bound[named] = int(sock.getsockname()[1])
        if sock.type == socket.SOCK_DGRAM:
            self.tell(sock)

    def tell(self, sock: socket.socket) -> None:
        if sock.family != getattr(socket, "AF_UNIX", None):
            real = int(sock.getsockname()[1])
            named = next((named for named, bound in self.bound.items() if bound == real), real)
            os.write(self.report, f"{named} {real}\n".encode())


def patch(ports: Ports) -> None:
    def bind(sock: socket.socket, address: Address) -> None:
        ports.bind(sock, address)

    def listen(sock: socket.socket, *backlog: int) -> None:
        _listen(sock, *backlog)
        ports.tell(sock)

    def connect(sock: socket.socket, address: Address) -> None:
        _connect(sock, ports.lead(address))

    def connect_ex(sock: socket.socket, address: Address) -> int:
        return _connect_ex(sock, ports.lead(address))

    for function in (bind, listen, connect, connect_ex):
        setattr(socket.socket, function.__name__, function)


def main(report: str, elsewhere: str, example: str) -> None:
    pairs = (pair.split("=") for pair in elsewhere.split(",") if pair)
    patch(Ports(int(report), {int(named): int(real) for named, real in pairs}))
    sys.argv = [example]
    sys.path[0] = os.path.dirname(example)
    runpy.run_path(example, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
