"""Serving inside a running loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llama._core.server import Server
from llama._core.shutdown import Shutdown
from llama._core.stream import ConnectionHandler
from llama._runtime.listeners import listen as bind_all
from llama._runtime.server_group import ServerGroup
from llama._runtime.servers_source import Address, to_servers


class Serving:
    """Running servers: their bound addresses, and the Shutdown that owns their tasks."""

    def __init__(self, shutdown: Shutdown, addresses: tuple[str, ...]) -> None:
        self.shutdown = shutdown
        self.addresses = addresses

    @property
    def address(self) -> str:
        """The first of the bound addresses."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of the first bound address; 0 for a path."""
        return int(self.address.rpartition(":")[2]) if not self.address.startswith("unix:") else 0


@asynccontextmanager
async def serve(
    *parts: Server | ConnectionHandler, listen: Address | None = None, grace: float | None = None
) -> AsyncGenerator[Serving]:
    """Serve while the block runs: `async with serve(echo, listen="127.0.0.1:0") as server:`.

    Takes any number of servers, or one handler and the address to `listen` on. Leaving the block stops accepting
    and waits for open connections; `grace` limits that wait, in seconds. An exception in the block cancels them.
    Raises OSError if an address cannot be bound, TypeError for an invalid stack.
    """
    generation = ServerGroup(bind_all(to_servers(parts, listen)), grace)
    addresses = generation.addresses
    async with generation.running():
        yield Serving(generation.shutdown, addresses)
