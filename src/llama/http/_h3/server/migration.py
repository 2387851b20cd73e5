"""Connection migration of a client (RFC 9000 section 9), hidden from the QUIC library.

The library treats each new address as a new path, never forgets a path, and drops packets from a fifth. It sends
challenges after data, in packets to the old address, and does not return to an earlier address of a client. So it is
given one constant address, and this module implements migration.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from llama.http._h3.server.packet_protection import PacketKeys

Address = Any  # an address of the socket module
SAME_HOST = 1 << 20
PATHS = 8  # addresses that are remembered
SEARCHES = 64
SMALLEST = (
    1200  # bytes to which a packet with a challenge is padded if the limit permits (RFC 9000 section 8.2.1)
)
PADDING, NEW_CONNECTION_ID, PATH_CHALLENGE, PATH_RESPONSE = 0x00, 0x18, b"\x1a", b"\x1b"


@dataclass(slots=True)
class Path:
    """An address of the client."""

    is_valid: bool = False
    credit: int = 0
    """Bytes that may be sent before the address is valid."""
    challenge: bytes = field(default_factory=lambda: os.urandom(8))
    asked: bytes | None = None
    """The client's challenge, whose response must be sent to this address."""
    searches: int = 0
    """The number of outgoing packets that may still be searched for the response."""


class PathMigration:
    """The addresses of one client after the handshake.

    An authentic packet that is the newest and not a probe moves the client to its source address. Until the client
    has answered a challenge there, at most three times the bytes received from that address are sent to it (section
    9.3.1), plus `SAME_HOST` bytes if only the port changed, as after a NAT rebinding; the rest goes to the last valid
    address.
    """

    def __init__(self, address: Address, received: PacketKeys, sent: PacketKeys) -> None:
        self.active = self._valid = address
        self._received = received
        self._sent = sent
        self._paths: OrderedDict[Address, Path] = OrderedDict({address: Path(is_valid=True)})
        self._newest = -1
        """The number of the packet that moved the client last."""
        self.is_settled = True
        """Whether no address awaits validation and no challenge awaits a response."""

    def update_keys(self) -> None:
        """The peers have updated their keys."""
        self._received.update()
        self._sent.update()

    def heard(self, data: bytes, address: Address, count: int) -> bool:
        """Note an authentic packet from an address, and return whether it moved the client."""
        packet = self._received.open(data, count)
        if packet is None:
            return False
        path = self._path(address)
        path.credit += 3 * len(data)
        if PATH_RESPONSE + path.challenge in packet.payload:
            path.is_valid = True
        is_probe, asked = _probe(packet.payload)
        has_moved = False
        if address != self.active:
            if is_probe:
                path.asked, path.searches = asked, SEARCHES
            elif packet.number > self._newest:
                has_moved = True
                self._newest = packet.number
                if not path.is_valid and address[0] == self._valid[0]:
                    path.credit += SAME_HOST
                self.active = address
        self._settle()
        return has_moved

    def _settle(self) -> None:
        active = self._paths[self.active]
        active.asked = None
        if active.is_valid:
            self._valid = self.active
        self.is_settled = active.is_valid and not any(each.asked for each in self._paths.values())

    def _path(self, address: Address) -> Path:
        """Return the state of an address; a new address evicts the least recently used one."""
        path = self._paths.get(address)
        if path is None:
            path = self._paths[address] = Path()
            if len(self._paths) > PATHS:
                del self._paths[next(each for each in self._paths if each not in (self.active, self._valid))]
        self._paths.move_to_end(address)
        return path

    def route(self, packets: list[bytes], count: int) -> list[tuple[bytes, Address]]:
        """Assign each packet its destination; the first packet to an address that is not valid gets a challenge."""
        if self.is_settled:
            return [(data, self.active) for data in packets]
        routed: list[tuple[bytes, Address]] = []
        is_challenged = False
        for data in packets:
            answered = self._answered(data, count)
            address = self.active if answered is None else answered
            path = self._paths[address]
            if not (path.is_valid or path.credit >= len(data)):
                address = self._valid
            elif not path.is_valid and (answered is not None or not is_challenged):
                is_challenged = is_challenged or answered is None
                data = self._challenge(data, path, count)
            if address != self._valid:
                path.credit -= len(data)
            routed.append((data, address))
        return routed

    def _answered(self, data: bytes, count: int) -> Address | None:
        """Return the address of the probe that this packet answers, None for any other packet."""
        probed = [(address, path) for address, path in self._paths.items() if path.asked is not None]
        if not probed or (packet := self._sent.open(data, count)) is None:
            return None
        found = None
        for address, path in probed:
            path.searches -= 1
            if path.asked is not None and PATH_RESPONSE + path.asked in packet.payload:
                path.asked = None
                found = address
            elif not path.searches:
                path.asked = None
        self._settle()
        return found

    def _challenge(self, data: bytes, path: Path, count: int) -> bytes:
        """Add a challenge to a packet; return it unchanged if the limit leaves no room."""
        frame = PATH_CHALLENGE + path.challenge
        if path.credit < len(data) + len(frame) or (packet := self._sent.open(data, count)) is None:
            return data
        room = min(SMALLEST, path.credit) - len(data) - len(frame)
        return self._sent.seal(packet, frame + bytes(max(room, 0)) + packet.payload)


def _probe(payload: bytes) -> tuple[bool, bytes | None]:
    """Return whether a packet contains only probing frames (RFC 9000 section 9.1), and its challenge."""
    at, end = 0, len(payload)
    asked = None
    while at < end:
        kind = payload[at]
        if kind == PADDING:
            at = end - len(payload[at:].lstrip(b"\0"))
        elif kind in (PATH_CHALLENGE[0], PATH_RESPONSE[0]):
            if kind == PATH_CHALLENGE[0]:
                asked = payload[at + 1 : at + 9]
            at += 9
        elif kind == NEW_CONNECTION_ID:
            at += 1
            for _ in range(2):
                at += 1 << (payload[at] >> 6)
            at += 1 + payload[at] + 16
        else:
            return False, asked
    return True, asked
