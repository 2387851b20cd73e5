"""The source of the servers: a list of them, a handler and its address, or a function that builds either."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from llama._core.server import Server
from llama._core.stack import check_service, display_name
from llama._core.stream import ConnectionHandler
from llama.tcp import server as tcp_server

Address: TypeAlias = str | int | tuple[str, int] | socket.socket
Builder: TypeAlias = Callable[[], Server | ConnectionHandler | Sequence[Server]]


class ServersSource:
    """Builds the servers: the same ones each time, or the result of calling a function again."""

    def __init__(self, parts: Sequence[Server | ConnectionHandler | Builder], listen: Address | None) -> None:
        self._listen = listen
        self._builder: Builder | None = None
        self._servers: tuple[Server, ...] = ()
        if len(parts) == 1 and is_builder(parts[0]):
            self._builder = cast("Builder", parts[0])
        else:
            self._servers = to_servers(cast("Sequence[Server | ConnectionHandler]", parts), listen)

    @property
    def is_reloadable(self) -> bool:
        """Whether another build may return different servers."""
        return self._builder is not None

    def build(self) -> tuple[Server, ...]:
        """Return the servers; raises what the function raises, and TypeError for an invalid result."""
        if self._builder is None:
            return self._servers
        built = self._builder()
        return to_servers(built if isinstance(built, (tuple, list)) else (built,), self._listen)


def is_builder(part: object) -> bool:
    """Whether this is a plain function callable without arguments; a service takes one."""
    if isinstance(part, Server) or hasattr(part, "__llama_factory__") or not callable(part):
        return False
    if inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(type(part).__call__):
        return False
    try:
        parameters = inspect.signature(part).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(each.default is not each.empty or each.kind is each.VAR_KEYWORD for each in parameters)


def to_servers(parts: Sequence[object], listen: object = None) -> tuple[Server, ...]:
    """Return servers unchanged, and a handler with an address as a TCP server; raises TypeError otherwise."""
    if listen is not None:
        if len(parts) != 1 or isinstance(parts[0], Server):
            raise TypeError("listen= goes with one service; servers have their own addresses")
        return (tcp_server(listen, parts[0]),)  # type: ignore[arg-type]  # tcp.server checks it
    servers: list[Server] = []
    for each in parts:
        if not isinstance(each, Server):
            check_service(each)
            raise TypeError(f"{display_name(each)} has no address: give listen=, or wrap it in tcp.server()")
        servers.append(each)
    if not servers:
        raise TypeError("there is nothing to serve")
    return tuple(servers)
