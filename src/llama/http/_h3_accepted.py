"""A QUIC connection as a server takes it, from clients with an empty connection id too."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.tls_bridge import QuicTlsBridge
from qh3.tls import ExtensionType

from llama.http._h3_early import Tickets
from llama.http._h3_link import Quic
from llama.http._h3_moves import Address, Moves

SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")  # RFC 9001 section 5.2
CIPHERS = ("aes-128-gcm", "aes-128-ecb")
INITIAL = 0


class Accepted(Quic):
    """A connection that a client began.

    Browsers leave their connection ids empty. The library sends to the id that the client first wrote to until
    it learns another, and never learns an empty one: it is told then that the first was empty as well. That
    has two consequences, which are mended here: its keys for Initial packets come of the wrong id, and it takes
    packets for its own id only, so that this must be the one that the client wrote to (`own`).
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        original: bytes,
        retry_source: bytes | None = None,
        *,
        own: bytes | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        """`own` is given for a client with an empty id: what it wrote to, which is free to be ours. With `tickets` it
        takes early data.
        """
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
            session_ticket_fetcher=None if tickets is None else tickets.take,
            session_ticket_handler=None if tickets is None else tickets.keep,
        )
        self._is_nameless = own is not None
        self.reset_token: bytes | None = None
        """What ends the connection when its state is lost; one of its own where None."""
        if own is not None:
            self.host_cid = own
        self._moves: Moves | None = None

    @property
    def is_heard(self) -> bool:
        """Whether any packet of the client was in order."""
        return self._core is not None and self._core.received_authenticated_packet

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take packets, and note it when the client has moved."""
        moves = self._moves
        if moves is None:
            super().receive(datagrams, address, now)
            if self._handshake_complete:
                self._moves = Moves(self._place())
        elif address == moves.known:
            super().receive(datagrams, address, now)
            if moves.new is not None:
                moves.settled(address)
        else:
            self._receive_elsewhere(moves, datagrams, address, now)

    def _receive_elsewhere(self, moves: Moves, datagrams: list[bytes], address: Address, now: float) -> None:
        core = self._require_core()
        for each in datagrams:
            accepted = self._call_core(core.receive_datagram, each, address, now, None)[2]
            self._drain_core()
            if accepted:
                moves.heard(address, len(each))
        if (place := self._place()) != moves.known:
            moves.settled(place)

    def _place(self) -> Address:
        """Where the library knows the client to be."""
        return self._require_core().active_path[2]

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        packets = super().datagrams_to_send(now)
        moves = self._moves
        if moves is None or moves.new is None:
            return packets
        return [(data, moves.where(address, len(data))) for data, address in packets]

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        if not self._is_nameless:
            super()._create_core(remote_addr, initial_dcid, now)
            return
        super()._create_core(remote_addr, b"", now)
        for direction, side in (("receive", b"client in"), ("send", b"server in")):
            key, iv, protection = initial_keys(initial_dcid, side)
            self._require_core().install_packet_key(
                direction, INITIAL, CIPHERS, key, iv, protection, 0, None, None
            )

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        tls = super()._create_tls(remote_source_cid)
        if self.reset_token is not None:
            tls.stateless_reset_token = self.reset_token
            told = tls.serialize_transport_parameters()
            tls.tls.handshake_extensions = [(ExtensionType.QUIC_TRANSPORT_PARAMETERS, told)]
        return tls


def initial_keys(number: bytes, side: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, IV and header protection key of Initial packets to this id (RFC 9001 section 5.2)."""
    extract = HMAC(SALT, SHA256())
    extract.update(number)
    secret = _expand(extract.finalize(), side, 32)
    return _expand(secret, b"quic key", 16), _expand(secret, b"quic iv", 12), _expand(secret, b"quic hp", 16)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 section 7.1)."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)
