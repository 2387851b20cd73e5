"""Pumps between a TLS session over a plain socket and a plain socket: a fast path with few calls per message.

They handle one record or message that passes at once. Everything else (unread bytes, meters, a backlog, the end)
falls back to the general pump.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from llama._core.stream import Buffer
from llama.tcp._io.stream import BUFFER_SIZE, SocketStream, scratch
from llama.tcp._relay.pump import Pump, PumpingStream, WriteFailed

SMALL_READ = 16384
Ended = Callable[[Pump, Exception | None], None]


class Session(PumpingStream):
    """The interface of a TLS stream that these pumps use."""

    __slots__ = ()

    @abstractmethod
    def is_plain(self) -> bool:
        """Whether `decrypt_now` is allowed: no buffered data, pending answer or meter, and not at the end."""

    @abstractmethod
    def decrypt_now(self, data: memoryview, /) -> memoryview | None:
        """Decrypt received bytes into a borrowed view; None if `read_nowait` has to look further."""

    @abstractmethod
    def takes_plain(self) -> bool:
        """Whether `encrypt_now` is allowed: no backlog or meter, and the write side is open."""

    @abstractmethod
    def encrypt_now(self, data: memoryview, /) -> bytes:
        """Encrypt plaintext into records, which the caller sends; raises TLSError."""

    @abstractmethod
    def store_output(self, records: memoryview, /) -> None:
        """Keep records that the transport did not accept, to send them first."""


class DecryptPump(Pump):
    """A pump from a session to a socket."""

    __slots__ = ("_below", "_receive", "_send", "_session", "_sink")

    def __init__(self, src: Session, below: SocketStream, dst: SocketStream, ended: Ended) -> None:
        super().__init__(src, dst, ended)
        self._session = src
        self._below = below
        self._sink = dst
        self._receive = below.socket.recv_into
        self._send = dst.socket.send

    def step(self) -> None:
        session, below = self._session, self._below
        port, view = below.port, scratch()
        if (
            not port.readable
            or below.bypass_fast_path
            or self._sink.bypass_fast_path
            or not session.is_plain()
        ):
            super().step()
            return
        try:
            size = self._receive(view)
            if not size:
                below.mark_eof()
            elif size < BUFFER_SIZE and not port.hangup:
                port.clear_readable()
            plain = session.decrypt_now(view[:size]) if size else None
        except BlockingIOError:
            port.clear_readable()
            return
        except Exception as error:  # includes errors of the session
            self._end(error)
            return
        if plain is None or (self._push(plain) and session.may_read_more):
            super().step()

    def _push(self, plain: memoryview) -> bool:
        size = len(plain)
        try:
            sent = self._send(plain)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(WriteFailed(error))
            return False
        self.count += sent
        if sent < size:
            self._sink.port.clear_writable()
            self._stall(bytes(plain[sent:]))
        return sent == size


class EncryptPump(Pump):
    """A pump from a socket to a session."""

    __slots__ = ("_below", "_receive", "_send", "_session", "_source")

    def __init__(self, src: SocketStream, dst: Session, below: SocketStream, ended: Ended) -> None:
        super().__init__(src, dst, ended)
        self._source = src
        self._session = dst
        self._below = below
        self._receive = src.socket.recv_into
        self._send = below.socket.send

    def step(self) -> None:
        source = self._source
        port, view = source.port, scratch()
        if (
            not port.readable
            or source.bypass_fast_path
            or self._below.bypass_fast_path
            or not self._session.takes_plain()
        ):
            super().step()
            return
        try:
            size = self._receive(view)
        except BlockingIOError:
            port.clear_readable()
            return
        except OSError as error:
            self._end(error)
            return
        if not size:
            source.mark_eof()
            self._pass_end()
            return
        if size < BUFFER_SIZE and not port.hangup:
            port.clear_readable()
        whole = self._put(view[:size]) if size > SMALL_READ else self._push(view[:size])
        if whole and port.readable:
            super().step()

    def _push(self, view: memoryview) -> bool:
        try:
            records: Buffer = self._session.encrypt_now(view)
            try:
                sent = self._send(records)
            except BlockingIOError:
                sent = 0
        except OSError as error:
            self._end(WriteFailed(error))
            return False
        self.count += len(view)
        if sent < len(records):
            self._below.port.clear_writable()
            self._session.store_output(memoryview(records)[sent:])
            self._stall(b"")
        return sent == len(records)
