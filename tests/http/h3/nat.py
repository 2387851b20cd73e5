"""A NAT between a client and a server: the server sees the client move to other addresses."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any


class Nat:
    """Forwards the packets of one client; `move` gives it another address."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._client: Any = None
        self.inside: asyncio.DatagramTransport | None = None
        self.outside: list[asyncio.DatagramTransport] = []
        self.current = 0
        self.loses_replies = False
        self.up: Counter[str] = Counter()
        """Bytes to the server, by the address they were sent from."""
        self.down: Counter[str] = Counter()

    async def open(self) -> int:
        """Bind both sides, and return the port for the client."""
        loop = asyncio.get_running_loop()
        self.inside, _ = await loop.create_datagram_endpoint(lambda: _Inside(self), ("127.0.0.1", 0))
        await self.move()
        return int(self.inside.get_extra_info("sockname")[1])

    async def move(self, host: str = "127.0.0.1", *, reply: bool = True) -> None:
        """Send from a new port of this host from now on."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Outside(self, host, reply), (host, 0))
        self.outside.append(transport)
        self.current = len(self.outside) - 1

    def send(self, data: bytes) -> None:
        transport = self.outside[self.current]
        self.up[transport.get_extra_info("sockname")[0]] += len(data)
        transport.sendto(data, self._server)

    def receive(self, data: bytes, host: str, reply: bool) -> None:
        self.down[host] += len(data)
        if reply and self.inside is not None and self._client is not None:
            self.inside.sendto(data, self._client)

    def came_from(self, client: Any) -> None:
        self._client = client


class _Inside(asyncio.DatagramProtocol):
    def __init__(self, nat: Nat) -> None:
        self._nat = nat

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._nat.came_from(addr)
        self._nat.send(data)


class _Outside(asyncio.DatagramProtocol):
    def __init__(self, nat: Nat, host: str, reply: bool) -> None:
        self._nat, self._host, self._reply = nat, host, reply

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._nat.receive(data, self._host, self._reply)


@asynccontextmanager
async def nat(port: int) -> AsyncGenerator[tuple[Nat, int]]:
    """A NAT in front of this port, and the port that its client connects to."""
    made = Nat(("127.0.0.1", port))
    try:
        yield made, await made.open()
    finally:
        for each in filter(None, (made.inside, *made.outside)):
            each.close()
        await asyncio.sleep(0)
