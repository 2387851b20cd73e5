"""The ClientHello, what a client says before anything is encrypted (RFC 8446, 4.1.2), and how to find it.

Nothing is decrypted and nothing is consumed: the bytes stay with the caller, who ends TLS or passes them on.
"""

from struct import Struct

from llama._errors import ProtocolError
from llama.tls import _hello_fields as fields
from llama.tls._fingerprint import GREASE, ja3_hash, ja3_text, ja4_hash, ja4_texts
from llama.tls._records import HELLO_LIMIT, RecordReader

_SERVER_NAME = 0
_SUPPORTED_GROUPS = 10
_EC_POINT_FORMATS = 11
_SIGNATURE_ALGORITHMS = 13
_ALPN = 16
_PRE_SHARED_KEY = 41
_EARLY_DATA = 42
_SUPPORTED_VERSIONS = 43
_KEY_SHARE = 51
_ENCRYPTED_CLIENT_HELLO = 0xFE0D

_u16 = Struct(">H").unpack_from


def find(data: bytes | bytearray | memoryview, limit: int = HELLO_LIMIT) -> "ClientHello | None":
    """The ClientHello that a connection's first bytes hold, or None while more bytes are needed.

    Raises ProtocolError for what is no ClientHello, as soon as that can be told (from five bytes on), and
    TooLarge for one of more than `limit` bytes, record headers apart. Records are checked
    here (RFC 8446, 5.1), what is in the message by `ClientHello.validate`. Each call reads every record
    again: where segments may be tiny, keep a `HelloReader` instead.
    """
    return HelloReader(limit).feed(data)


class HelloReader:
    """Finds a ClientHello in bytes that arrive in pieces, and looks at each byte once."""

    __slots__ = ("_records",)

    def __init__(self, limit: int = HELLO_LIMIT) -> None:
        self._records = RecordReader(limit)

    def feed(self, data: bytes | bytearray | memoryview) -> "ClientHello | None":
        """Take the next bytes: the ClientHello when it is whole, None before. The errors are `find`'s."""
        message = self._records.feed(data)
        return None if message is None else ClientHello(message)


class ClientHello:
    """A client's first message. Nothing is parsed before it is asked for, and then once.

    Properties raise ProtocolError where the bytes that they read are malformed; after `validate` none does.
    Two are equal when their bytes are.
    """

    __slots__ = ("_ja3", "_ja4", "_layout", "_message", "_server_name", "_transport")

    def __init__(self, message: bytes, transport: str = "t") -> None:
        """Wrap a handshake message, its four-byte header included; `transport` is JA4's: t, q or d."""
        self._message = message
        self._transport = transport
        self._layout: fields.Layout | None = None
        self._server_name: str | None = ""
        self._ja3: str | None = None
        self._ja4: str | None = None

    def validate(self) -> None:
        """Parse all that the properties read; ProtocolError says what is malformed first."""
        _ = (self.server_name, self.alpn, self.supported_versions, self.supported_groups)
        _ = (self.signature_algorithms, self.key_share_groups, self.ec_point_formats)

    @property
    def message(self) -> bytes:
        """The handshake message as sent, without record headers."""
        return self._message

    def _split(self) -> fields.Layout:
        if self._layout is None:
            self._layout = fields.split(self._message)
        return self._layout

    @property
    def legacy_version(self) -> int:
        """The version field that TLS 1.3 froze at 0x0303; `supported_versions` says what is offered."""
        self._split()
        return int(_u16(self._message, 4)[0])

    @property
    def random(self) -> bytes:
        """The 32 random bytes."""
        self._split()
        return self._message[6:38]

    @property
    def session_id(self) -> bytes:
        """The legacy session id, 0 to 32 bytes."""
        return self._message[fields.SESSION_ID + 1 : self._split().session_end]

    @property
    def cipher_suites(self) -> tuple[int, ...]:
        """The cipher suites in the client's order, GREASE and signalling values included."""
        return fields.two_byte_numbers(self._cipher_bytes())

    def _cipher_bytes(self) -> bytes:
        session_end, ciphers_end, _ = self._split()
        return self._message[session_end + 2 : ciphers_end]

    @property
    def compression_methods(self) -> tuple[int, ...]:
        """The compression methods: (0,) from any client of TLS 1.3."""
        at = self._split().ciphers_end + 1
        return tuple(self._message[at : at + self._message[at - 1]])

    @property
    def extensions(self) -> tuple[tuple[int, bytes], ...]:
        """All extensions as (type, content), in the order sent."""
        message = self._message
        return tuple([(kind, fields.content(message, at)) for kind, at in self._split().extensions.items()])

    def extension(self, kind: int) -> bytes | None:
        """The content of one extension, by its number; None where it was not sent."""
        at = self._split().extensions.get(kind)
        return None if at is None else fields.content(self._message, at)

    @property
    def server_name(self) -> str | None:
        """The host name that the client asks for (SNI), in lower case without a trailing dot.

        None where it sent none, or one that is not a host name, such as an address. With ECH this is the outer name.
        """
        if self._server_name == "":
            data = self.extension(_SERVER_NAME)
            self._server_name = None if data is None else fields.server_name(data)
        return self._server_name

    @property
    def alpn(self) -> tuple[str, ...]:
        """The protocols offered, best first; bytes that are not ASCII read as Latin-1, so none is lost."""
        return tuple(name.decode("latin-1") for name in self._protocols())

    def _protocols(self) -> tuple[bytes, ...]:
        data = self.extension(_ALPN)
        return () if data is None else fields.protocols(data)

    def _numbers(self, kind: int, width: int, what: str) -> tuple[int, ...]:
        data = self.extension(kind)
        return () if data is None else fields.numbers(data, width, what)

    @property
    def supported_versions(self) -> tuple[int, ...]:
        """The versions offered, in the client's order; without that extension, the legacy version alone."""
        return self._numbers(_SUPPORTED_VERSIONS, 1, "supported_versions") or (self.legacy_version,)

    @property
    def supported_groups(self) -> tuple[int, ...]:
        """The key exchange groups offered, in the client's order."""
        return self._numbers(_SUPPORTED_GROUPS, 2, "supported_groups")

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """The signature algorithms offered, in the client's order."""
        return self._numbers(_SIGNATURE_ALGORITHMS, 2, "signature_algorithms")

    @property
    def key_share_groups(self) -> tuple[int, ...]:
        """The groups that the client sent a key for at once."""
        data = self.extension(_KEY_SHARE)
        return () if data is None else fields.key_share_groups(data)

    @property
    def ec_point_formats(self) -> tuple[int, ...]:
        """The elliptic curve point formats offered."""
        data = self.extension(_EC_POINT_FORMATS)
        return () if data is None else fields.octets(data, "ec_point_formats")

    @property
    def psk(self) -> bool:
        """Whether the client offers to resume a session by a pre-shared key (TLS 1.3)."""
        return _PRE_SHARED_KEY in self._split().extensions

    @property
    def early_data(self) -> bool:
        """Whether the client sends early data after this message (TLS 1.3)."""
        return _EARLY_DATA in self._split().extensions

    @property
    def ech(self) -> bool:
        """Whether an encrypted ClientHello is inside, or random bytes as browsers send in its place."""
        data = self.extension(_ENCRYPTED_CLIENT_HELLO)
        return data is not None and data[:1] == b"\0"

    @property
    def grease(self) -> bool:
        """Whether there is GREASE (RFC 8701) among the cipher suites, extensions, groups or versions."""
        return not (
            GREASE.isdisjoint(self.cipher_suites)
            and GREASE.isdisjoint(self._split().extensions)
            and GREASE.isdisjoint(self.supported_groups)
            and GREASE.isdisjoint(self.supported_versions)
        )

    @property
    def ja3_text(self) -> str:
        """The text under the JA3."""
        return ja3_text(
            self.legacy_version,
            self.cipher_suites,
            self._split().extensions,
            self.supported_groups,
            self.ec_point_formats,
        )

    @property
    def ja3(self) -> str:
        """The JA3 fingerprint: 32 hex digits."""
        if self._ja3 is None:
            self._ja3 = ja3_hash(self.ja3_text)
        return self._ja3

    def _ja4_texts(self) -> tuple[str, str, str]:
        algorithms = self.extension(_SIGNATURE_ALGORITHMS)
        protocols = self._protocols()
        versions = [version for version in self.supported_versions if version not in GREASE]
        return ja4_texts(
            self._transport,
            max(versions, default=0),
            self._cipher_bytes(),
            fields.two_byte_values(self._split().extensions),
            protocols[0] if protocols else b"",
            b"" if algorithms is None else fields.number_bytes(algorithms, 2, "signature_algorithms"),
        )

    @property
    def ja4_text(self) -> str:
        """The JA4 before hashing, sorted (`JA4_r`)."""
        return "_".join(self._ja4_texts())

    @property
    def ja4(self) -> str:
        """The JA4 client fingerprint: `t13d1516h2_8daaf6152771_e5627efa2ab1`."""
        if self._ja4 is None:
            self._ja4 = ja4_hash(*self._ja4_texts())
        return self._ja4

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientHello) and self._message == other._message

    def __hash__(self) -> int:
        return hash(self._message)

    def __repr__(self) -> str:
        try:
            return f"<ClientHello for {self.server_name or 'no name'}, alpn {','.join(self.alpn) or 'none'}>"
        except ProtocolError as error:
            return f"<malformed ClientHello: {error}>"
