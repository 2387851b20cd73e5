"""Binding of TCP and Unix sockets."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence
from typing import Any

from llama._core.errors import ConfigError
from llama._core.target import split_address

Address = str | int | tuple[str, int] | socket.socket
SocketAddress = tuple[Any, ...]  # of the socket module: host, port, and for IPv6 two more numbers


def bind(
    address: Address, backlog: int, *, reuse_port: bool = False, same_ports_as: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """Return listening, non-blocking sockets for an address; on failure no socket is left open."""
    if isinstance(address, socket.socket):
        return [_inherited(f"fd:{address.fileno()}", address.dup(), backlog)]
    if isinstance(address, str) and address.startswith("fd:"):
        return [_inherited(address, _from_descriptor(address), backlog)]
    if isinstance(address, str) and address.startswith("unix:"):
        return [same_ports_as[0].dup()] if same_ports_as else [_bind_path(address[5:], backlog)]
    if isinstance(address, int):
        host, port = "", address
    else:
        host, port = split_address(address) if isinstance(address, str) else address
    return _bind_hosts(host, port, backlog, reuse_port=reuse_port, same_ports_as=same_ports_as)


def _bind_hosts(
    host: str, port: int, backlog: int, *, reuse_port: bool, same_ports_as: Sequence[socket.socket]
) -> list[socket.socket]:
    opened: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            if not port and (len(opened) < len(same_ports_as) or opened):
                known = same_ports_as[len(opened)] if len(opened) < len(same_ports_as) else opened[0]
                address = (address[0], known.getsockname()[1], *address[2:])
            try:
                if reuse_port and not same_ports_as:
                    # The first of the shared sockets: fail if another program listens there already.
                    _bind_one(family, address, None, reuse_port=False, dual=not host).close()
                opened.append(_bind_one(family, address, backlog, reuse_port=reuse_port, dual=not host))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = (
                    error  # a name may have addresses that this machine lacks, such as `::1` without IPv6
                )
        if missing is not None and not opened:
            raise missing
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def _addresses(host: str, port: int) -> list[tuple[int, SocketAddress]]:
    if not host:
        if socket.has_dualstack_ipv6():
            return [(socket.AF_INET6, ("::", port, 0, 0))]
        return [(socket.AF_INET, ("0.0.0.0", port))]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {host}: {error.strerror}") from None
    places: dict[tuple[int, SocketAddress], None] = dict.fromkeys((int(each[0]), each[4]) for each in found)
    return list(places)


def _bind_one(
    family: int,
    address: SocketAddress,
    backlog: int | None,
    *,
    reuse_port: bool,
    dual: bool,
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # on Windows it would let two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        return sock if backlog is None else _start_listening(sock, backlog)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot listen on {address[0]} port {address[1]}: {error.strerror}"
        ) from None


def _bind_path(path: str, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale_socket(path)
        sock.bind(path)
        return _start_listening(sock, backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on unix:{path}: {error.strerror or error}") from None


def _remove_stale_socket(path: str) -> None:
    """Remove a socket file without a listener; one with a listener makes `bind` fail."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # it has a listener, whose queue is full
            return


def _from_descriptor(address: str) -> socket.socket:
    if not (address[3:].isascii() and address[3:].isdigit()):
        raise ConfigError(f"{address!r} is not an inherited socket: expected fd:NUMBER")
    copy = -1
    try:
        copy = os.dup(int(address[3:]))
        return socket.socket(fileno=copy)
    except OSError as error:
        if copy >= 0:
            os.close(copy)
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None


def _inherited(address: str, sock: socket.socket, backlog: int) -> socket.socket:
    try:
        return _start_listening(sock, backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None


def _start_listening(sock: socket.socket, backlog: int) -> socket.socket:
    sock.listen(backlog)
    sock.setblocking(False)
    return sock
