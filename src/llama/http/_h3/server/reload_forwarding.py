"""Forwarding of packets to the process that still serves their connection, after a reload with workers.

A worker shares its UDP socket with its predecessor, and each packet is read by only one of them. The new worker
reads, and forwards packets that belong to none of its connections over Unix sockets, whose names are derived from a
secret that only these processes share. Linux only.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import sys
from collections.abc import Callable

from llama.http._h3.connection import Address
from llama.tcp._io.readiness import Port

GENERATIONS = 8  # replaced processes that may drain at the same time
PROBE = 0.05  # seconds between attempts to connect to the names
WORKS = sys.platform == "linux"


def _names(sock: socket.socket, secret: bytes) -> list[str]:
    """Return the socket names for this UDP socket; all processes derive the same ones, from the socket's inode."""
    inode = os.fstat(sock.fileno()).st_ino
    return [
        "\0" + hmac.digest(secret, b"packets %d %d" % (inode, number), "sha256").hex()
        for number in range(GENERATIONS)
    ]


class ForwardedInbox:
    """Receives the packets that a newer process forwards; calls `receive` with each packet and its address."""

    def __init__(self, sock: socket.socket, secret: bytes, receive: Callable[[bytes, Address], None]) -> None:
        """Raises OSError if all names are in use."""
        self._receive = receive
        self._ports: dict[Port, socket.socket] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self._bind(_names(sock, secret))
            self._socket.listen()
        except BaseException:
            self._socket.close()
            raise
        self._watch(self._socket, self._accept)

    def _bind(self, names: list[str]) -> None:
        for name in names[:-1]:
            with contextlib.suppress(OSError):
                self._socket.bind(name)
                return
        self._socket.bind(names[-1])

    def _watch(self, sock: socket.socket, readable: Callable[[Port], None]) -> None:
        port = Port(sock.fileno())
        self._ports[port] = sock
        port.on_readable(lambda: readable(port))

    def _accept(self, port: Port) -> None:
        try:
            taken, _ = self._socket.accept()
        except OSError:
            port.clear_readable()
            return
        taken.setblocking(False)
        self._watch(taken, self._read)
        port.on_readable(lambda: self._accept(port))  # more connections may wait

    def _read(self, port: Port) -> None:
        for _ in range(64):
            try:
                data = self._ports[port].recv(65536)
            except BlockingIOError:
                port.clear_readable()
                return
            except OSError:
                data = b""
            if not data:
                self._leave(port)
                return
            self._open(data)
            if port not in self._ports:  # it was the last connection
                return
        port.on_readable(lambda: self._read(port))

    def _open(self, data: bytes) -> None:
        address, _, packet = data.partition(b"\0")
        host, *numbers = address.decode().split(" ")
        self._receive(packet, (host, *map(int, numbers)))

    def _leave(self, port: Port) -> None:
        port.on_readable(None)
        port.unregister()
        self._ports.pop(port).close()

    def close(self) -> None:
        """Stop receiving."""
        for port in tuple(self._ports):
            self._leave(port)


class ForwardingOutbox:
    """Forwards packets to replaced processes; it looks for them when a packet has an unknown connection id."""

    def __init__(self, sock: socket.socket, secret: bytes) -> None:
        self._names = _names(sock, secret) if WORKS else []
        self._ways: dict[str, socket.socket] = {}
        self._next = 0.0

    def send(self, data: bytes, address: Address, now: float) -> bool:
        """Forward a packet to all replaced processes; return whether there are any."""
        if now >= self._next:
            self._next = now + PROBE
            self._look()
        message = b"\0".join((" ".join(map(str, address)).encode(), data)) if self._ways else b""
        for name, way in tuple(self._ways.items()):
            try:
                way.send(message)
            except BlockingIOError:  # dropped; QUIC resends it
                pass
            except OSError:
                self._ways.pop(name).close()
        return bool(self._ways)

    def _look(self) -> None:
        for name in self._names:
            if name not in self._ways:
                way = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
                try:
                    way.connect(name)
                except OSError:
                    way.close()
                else:
                    self._ways[name] = way

    def close(self) -> None:
        """Stop forwarding."""
        while self._ways:
            self._ways.popitem()[1].close()
