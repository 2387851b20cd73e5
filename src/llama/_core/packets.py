"""Packets: datagrams to and from one peer or many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, TypeAlias

from llama._core.extensions import Extensions
from llama._core.server import LocalAddress, PeerAddress
from llama._core.service import Service
from llama._core.stream import Buffer
from llama._core.target import Target


class Packet(NamedTuple):
    """One datagram and its source."""

    data: bytes
    peer: PeerAddress


class Packets(ABC):
    """A datagram socket. Datagrams may be lost, duplicated or reordered.

    The code that opened it owns it and closes it. One receiver at a time: a second raises Busy. `aclose` and
    `abort` wake a pending call with Closed.
    """

    __slots__ = ("_extensions",)

    def __init__(self) -> None:
        self._extensions: Extensions | None = None

    @property
    def extensions(self) -> Extensions:
        """Information about the association, keyed by type."""
        if self._extensions is None:
            self._extensions = Extensions()
        return self._extensions

    @property
    @abstractmethod
    def address(self) -> LocalAddress | None:
        """The local address; None while no socket is bound."""

    @abstractmethod
    async def receive(self) -> Packet:
        """Return the next datagram.

        Raises StreamClosedError after `aclose` or `abort`, OSError when the association broke.

        A cancelled call loses no datagram.
        """

    @abstractmethod
    async def send(self, data: Buffer, to: Target | None = None) -> None:
        """Send one datagram; `to` may be omitted if there is only one peer.

        Raises ValueError without a peer, StreamClosedError after `aclose` or `abort`, OSError if the datagram cannot
        be sent, for example because it is too large.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close it and free its resources. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Close it immediately; never blocks. Idempotent."""


PacketConnector: TypeAlias = Service[Target | None, Packets]
"""Opens packets to and from one target or, called with None, to the target that each send names."""
