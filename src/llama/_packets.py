"""Packets: datagrams to and from one place or many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, TypeAlias

from llama._extensions import Extensions
from llama._server import Local, Peer
from llama._service import Service
from llama._stream import Buffer
from llama._target import Target


class Packet(NamedTuple):
    """One datagram, and where it came from."""

    data: bytes
    peer: Peer


class Packets(ABC):
    """Datagrams, each whole and on its own: they may be lost, doubled or out of order.

    Whoever made it owns it and closes it. One receiver at a time: a second raises Busy. `aclose` and `abort`
    wake a pending call with Closed.
    """

    __slots__ = ("_extensions",)

    def __init__(self) -> None:
        self._extensions: Extensions | None = None

    @property
    def extensions(self) -> Extensions:
        """What is known of these packets' way, by type."""
        if self._extensions is None:
            self._extensions = Extensions()
        return self._extensions

    @property
    @abstractmethod
    def address(self) -> Local | None:
        """The address that others send to, where there is one yet."""

    @abstractmethod
    async def receive(self) -> Packet:
        """The next datagram; raises Closed after `aclose` or `abort`, OSError when the way to the peers broke.

        A call that is cancelled loses none.
        """

    @abstractmethod
    async def send(self, data: Buffer, to: Target | None = None) -> None:
        """Send one datagram; `to` may be left out where there is one peer only.

        Raises ValueError without a peer, Closed after `aclose` or `abort`, OSError for what cannot be sent, such
        as a datagram that is too large.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End it and free all. Again does nothing."""

    @abstractmethod
    def abort(self) -> None:
        """End it at once; never blocks. Again does nothing."""


PacketConnector: TypeAlias = Service[Target | None, Packets]
"""Opens packets to and from one target, or, given None, to whatever target each of them names."""
