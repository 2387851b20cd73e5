"""Binding of UDP sockets."""

from __future__ import annotations

import socket
from collections.abc import Sequence


def bind_packets(
    host: str, port: int, *, shared: bool = False, like: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """Return bound, non-blocking sockets for an address, one for each family; on failure none is left open.

    An empty host means all IPv4 and IPv6 addresses. `shared` and `like` are those of `Server.bind`.
    Raises OSError that names the address.
    """
    opened: list[socket.socket] = []
    try:
        for family, name in _addresses(host, port):
            known = like[len(opened)] if len(opened) < len(like) else next(iter(opened), None)
            at = port or (int(known.getsockname()[1]) if known is not None else 0)
            if shared and not like:
                _bind(family, name, at).close()  # fail if another program is bound there already
            opened.append(_bind(family, name, at, shared=shared))
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    if not host:
        both = [(int(socket.AF_INET), "0.0.0.0")]
        return [*both, (int(socket.AF_INET6), "::")] if socket.has_dualstack_ipv6() else both
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot bind a UDP socket to {host}: {error.strerror}") from None
    return list({int(each[0]): str(each[4][0]) for each in found}.items())


def _bind(family: int, host: str, port: int, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot bind a UDP socket to {host} port {port}: {error.strerror}"
        ) from None
    return sock
