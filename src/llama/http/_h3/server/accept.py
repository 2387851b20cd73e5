"""The server side of a QUIC connection, including clients with an empty connection id."""

from __future__ import annotations

import contextlib

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from qh3.quic.connection import QuicConnectionError
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsTrafficSecret
from qh3.tls import Direction, Epoch, ExtensionType

from llama.http._h3.connection import PausableQuicConnection
from llama.http._h3.early_data import ServerTickets
from llama.http._h3.server.certificates import Identities, tls_info, use_names
from llama.http._h3.server.migration import Address, PathMigration
from llama.http._h3.server.packet_protection import PacketKeys
from llama.tls._info import TLSInfo

SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")  # RFC 9001 section 5.2
CIPHERS = ("aes-128-gcm", "aes-128-ecb")
INITIAL = 0


class ServerQuicConnection(PausableQuicConnection):
    """A connection opened by a client.

    Browsers use empty connection ids. The library sends to the id that the client first wrote to until it learns
    another, and never learns an empty one; so for such clients this class claims that the first id was empty too.
    That has two consequences, which this class corrects: the library derives the keys for Initial packets from the
    wrong id, and it accepts packets for its own id only, which must then be the one that the client wrote to (`own`).
    """

    def __init__(
        self,
        identities: Identities,
        original: bytes,
        retry_source: bytes | None = None,
        *,
        own: bytes | None = None,
        tickets: ServerTickets | None = None,
    ) -> None:
        """`own` is set for a client with an empty id: the unused id that it wrote to, which becomes the server's.

        With `tickets`, early data is accepted.
        """
        super().__init__(
            configuration=identities.choose(None).configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
            session_ticket_fetcher=None if tickets is None else tickets.take,
            session_ticket_handler=None if tickets is None else tickets.keep,
        )
        self._identities = identities
        self._is_nameless = own is not None
        self.reset_token: bytes | None = None
        """The stateless reset token; None for one that the library chooses."""
        if own is not None:
            self.host_cid = own
        self._moves: PathMigration | None = None
        self._home: Address | None = None
        """The client's address as the library knows it; it stays the same when the client moves."""
        self._received = self._sent = 0
        self._secrets: dict[Direction, QuicTlsTrafficSecret] = {}
        self._phase: int | None = None
        self._written_to = b""

    @property
    def is_heard(self) -> bool:
        """Whether an authentic packet of the client has arrived."""
        return self._core is not None and self._core.received_authenticated_packet

    @property
    def tls_info(self) -> TLSInfo:
        """The TLS session, once the ClientHello has arrived."""
        assert self._tls is not None
        return tls_info(self._tls.tls)

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Process packets, and detect when the client moves to another address."""
        moves, home = self._moves, self._home
        if home is None:
            home = self._home = address
        self._received += len(datagrams)
        if moves is None:
            super().receive(datagrams, home, now)
            if self._handshake_complete:
                self._begin_moves(home)
        elif address == moves.active and moves.is_settled:
            super().receive(datagrams, home, now)
            self._follow_keys(moves)
        else:
            for each in datagrams:
                self._receive_elsewhere(moves, each, address, now)

    def _receive_elsewhere(self, moves: PathMigration, data: bytes, address: Address, now: float) -> None:
        core = self._require_core()
        accepted = self._call_core(core.receive_datagram, data, self._home, now, None)[2]
        self._drain_core()
        self._follow_keys(moves)
        if accepted and moves.heard(data, address, self._received) and data[1:9] != self._written_to:
            # When a client uses a new id after a move, use a new one for it too, against linkability (section 9.5).
            self._written_to = data[1:9]
            with contextlib.suppress(ValueError, QuicConnectionError):  # the client has issued no other id
                self.change_connection_id()

    def _begin_moves(self, home: Address) -> None:
        sent, received = (self._secrets.get(each) for each in (Direction.ENCRYPT, Direction.DECRYPT))
        assert sent is not None and received is not None and self._tls is not None
        peer = self._tls.remote_initial_source_connection_id or b""
        self._written_to = self.host_cid
        self._phase = self._require_core().receive_key_phase
        self._moves = PathMigration(
            home,
            PacketKeys(received.cipher_suite, received.secret, len(self.host_cid)),
            PacketKeys(sent.cipher_suite, sent.secret, len(peer)),
        )

    def _follow_keys(self, moves: PathMigration) -> None:
        phase = self._require_core().receive_key_phase
        if phase != self._phase:
            self._phase = phase
            moves.update_keys()

    def _drain_tls(self) -> None:
        if self._tls is not None:
            for each in self._tls._traffic_secrets:
                if each.epoch == Epoch.ONE_RTT:
                    self._secrets[each.direction] = each
        super()._drain_tls()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        packets = super().datagrams_to_send(now)
        self._sent += len(packets)
        moves = self._moves
        if moves is None or not packets or (moves.is_settled and moves.active == self._home):
            return packets
        return moves.route([data for data, _ in packets], self._sent)

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
        use_names(tls.tls, self._identities)
        if self.reset_token is not None:
            tls.stateless_reset_token = self.reset_token
            told = tls.serialize_transport_parameters()
            tls.tls.handshake_extensions = [(ExtensionType.QUIC_TRANSPORT_PARAMETERS, told)]
        return tls


def initial_keys(number: bytes, side: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the key, IV and header protection key of Initial packets to this id (RFC 9001 section 5.2)."""
    extract = HMAC(SALT, SHA256())
    extract.update(number)
    secret = _expand(extract.finalize(), side, 32)
    return _expand(secret, b"quic key", 16), _expand(secret, b"quic iv", 12), _expand(secret, b"quic hp", 16)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 section 7.1)."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)
