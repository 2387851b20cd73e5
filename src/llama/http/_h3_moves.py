"""Where packets go while a client moves to another address (RFC 9000 section 9)."""

from __future__ import annotations

from typing import Any

Address = Any  # the socket module's
SAME_HOST = 1 << 20


class Moves:
    """The addresses of a client whose hands are shaken.

    The library goes on with the old address until the new one has answered it. What is to ask there waits behind
    data, though, in packets that it sends to the old one: from a client that moves in the middle of a download no
    answer would come. So once a packet that is in order came from a new address, the rest goes there, but before it
    has answered no more than three times what came from it (section 9.3.1), and `SAME_HOST` bytes where only the port
    is new.
    """

    def __init__(self, address: Address) -> None:
        self.known = address
        self.new: Address | None = None
        self._credit = 0

    def heard(self, address: Address, size: int) -> None:
        """Bytes that are in order came from an address that is not the known one."""
        if address != self.new:
            self.new = address
            # Another port of the same host is what a NAT gives out anew, and that host has answered before.
            self._credit = SAME_HOST if address[0] == self.known[0] else 0
        self._credit += 3 * size

    def settled(self, address: Address) -> None:
        """The client is known to be here, or is here again."""
        self.known, self.new = address, None

    def where(self, address: Address, size: int) -> Address:
        """Where a packet goes that the library sends here."""
        if self.new is None or size > self._credit:
            return address
        self._credit -= size
        return self.new
