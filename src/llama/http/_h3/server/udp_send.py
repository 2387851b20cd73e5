"""Sending packets over a UDP socket, batched per round of the event loop.

On Linux, packets of one size to one address are passed to the kernel in one call, and the kernel splits them
(UDP_SEGMENT, since 4.18).
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from collections import deque
from itertools import islice
from typing import Any

from llama.tcp._io.readiness import Port

log = logging.getLogger("llama.http3")
MAX_QUEUED = 1024  # packets queued while the socket is full; further ones are dropped and QUIC resends them
MAX_BATCH = 256  # queued packets that are sent before the end of the round
MAX_SEGMENTS = 64
MAX_DATAGRAM = 65_000  # bytes in one call
UDP_SEGMENT = 103
_GSO_UNSUPPORTED = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}
Address = Any  # an address of the socket module


class UdpSender:
    """Sends packets over a socket; `port` reports when the socket is writable."""

    def __init__(self, sock: socket.socket, port: Port) -> None:
        self._sock = sock
        self._port = port
        self._queue: deque[tuple[bytes, Address]] = deque()
        self._is_due = self._is_full = False
        self._segments = MAX_SEGMENTS if sys.platform == "linux" else 1

    def send(self, data: bytes, address: Address) -> None:
        """Send a packet at the end of this round of the loop, or once the socket is writable."""
        queue = self._queue
        if len(queue) < MAX_QUEUED:
            queue.append((data, address))
        if self._is_full:
            return
        if not self._is_due:
            self._is_due = True
            self._port.send_soon(self)
        elif len(queue) >= MAX_BATCH:
            self._send_all()

    def flush_buffered(self) -> None:
        """Send the queue at the end of the round."""
        self._is_due = False
        if not self._is_full:
            self._send_all()

    def close(self) -> None:
        """Send the packets that the socket accepts now; drop the rest."""
        self._send_all()
        self._queue.clear()
        self._port.on_writable(None)

    def _send_all(self) -> None:
        queue = self._queue
        while queue:
            gone = self._send_next()
            if not gone:
                self._port.clear_writable()
                if not self._is_full:
                    self._is_full = True
                    self._port.on_writable(self._writable)
                return
            for _ in range(gone):
                queue.popleft()

    def _group(self) -> int:
        """Return how many of the next packets fit in one call: one size, one address; the last may be shorter."""
        queue = self._queue
        first, address = queue[0]
        size = len(first)
        most = min(self._segments, MAX_DATAGRAM // (size or 1))
        count = 0
        for data, to in queue:
            if count >= most or len(data) > size or to != address:
                break
            count += 1
            if len(data) < size:
                break
        return count

    def _send_next(self) -> int:
        """Send one batch; return how many packets were sent or dropped, 0 if the socket is full."""
        data, address = self._queue[0]
        try:
            if (many := self._group()) > 1:
                try:
                    self._send_gso(many, len(data), address)
                    return many
                except OSError as error:
                    if error.errno not in _GSO_UNSUPPORTED:
                        raise
                    if error.errno != errno.EMSGSIZE:  # EMSGSIZE concerns this size only
                        self._segments = 1
            self._sock.sendto(data, address)
        except BlockingIOError:
            return 0
        except OSError as error:  # the client is unreachable; QUIC detects the loss
            log.debug("%s: %s", address, error)
        return 1

    def _send_gso(self, many: int, size: int, address: Address) -> None:
        packets = [data for data, _ in islice(self._queue, many)]
        self._sock.sendmsg(packets, [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))], 0, address)

    def _writable(self) -> None:
        self._is_full = False
        self._port.on_writable(None)
        self._send_all()
