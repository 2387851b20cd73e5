"""A parser for the ClientHello, the unencrypted first message of a TLS client (RFC 8446, 4.1.2).

It decrypts and consumes nothing: the caller keeps the bytes, to terminate TLS or to pass them on.
"""

from struct import Struct

from llama._core.errors import ProtocolError
from llama.tls._client_hello import fields
from llama.tls._client_hello.fingerprint import GREASE, ja3_hash, ja3_text, ja4_hash, ja4_texts
from llama.tls._client_hello.records import HELLO_LIMIT, RecordReader

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
    """Parse the ClientHello from a connection's first bytes; None if more bytes are needed.

    Raises ProtocolError as soon as the bytes cannot be a ClientHello (five bytes are enough), and TooLargeError for
    one of more than `limit` bytes without record headers. This checks the records (RFC 8446, 5.1);
    `ClientHello.validate` checks the message. Each call reads all records again: for bytes that arrive in small
    segments, use a `HelloReader`.
    """
    return HelloReader(limit).feed(data)


class HelloReader:
    """An incremental ClientHello parser that reads each byte once."""

    __slots__ = ("_records",)

    def __init__(self, limit: int = HELLO_LIMIT) -> None:
        self._records = RecordReader(limit)

    def feed(self, data: bytes | bytearray | memoryview) -> "ClientHello | None":
        """Add the next bytes; return the ClientHello once it is complete, else None. Raises as `find` does."""
        message = self._records.feed(data)
        return None if message is None else ClientHello(message)


class ClientHello:
    """A client's first message. Fields are parsed on first use.

    Properties raise ProtocolError if the bytes they read are malformed; after `validate` they do not raise.
    Instances are equal if their bytes are equal.
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
        """Parse every field. Raises ProtocolError for the first malformed one."""
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
        """The version field, frozen at 0x0303 in TLS 1.3; `supported_versions` has the versions offered."""
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
        """Return the content of an extension by its number; None if it was not sent."""
        at = self._split().extensions.get(kind)
        return None if at is None else fields.content(self._message, at)

    @property
    def server_name(self) -> str | None:
        """The server name (SNI), in lower case without a trailing dot.

        None if the client sent none, or one that is not a host name, such as an address. With ECH it is the outer name.
        """
        if self._server_name == "":
            data = self.extension(_SERVER_NAME)
            self._server_name = None if data is None else fields.server_name(data)
        return self._server_name

    @property
    def alpn(self) -> tuple[str, ...]:
        """The ALPN protocols offered, preferred first, decoded as Latin-1 so that every byte is kept."""
        return tuple(name.decode("latin-1") for name in self._protocols())

    def _protocols(self) -> tuple[bytes, ...]:
        data = self.extension(_ALPN)
        return () if data is None else fields.protocols(data)

    def _numbers(self, kind: int, width: int, what: str) -> tuple[int, ...]:
        data = self.extension(kind)
        return () if data is None else fields.numbers(data, width, what)

    @property
    def supported_versions(self) -> tuple[int, ...]:
        """The versions offered, in the client's order; only the legacy version if the extension was not sent."""
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
        """The groups for which the client sent a key share."""
        data = self.extension(_KEY_SHARE)
        return () if data is None else fields.key_share_groups(data)

    @property
    def ec_point_formats(self) -> tuple[int, ...]:
        """The elliptic curve point formats offered."""
        data = self.extension(_EC_POINT_FORMATS)
        return () if data is None else fields.octets(data, "ec_point_formats")

    @property
    def psk(self) -> bool:
        """Whether the client offers a pre-shared key, to resume a session (TLS 1.3)."""
        return _PRE_SHARED_KEY in self._split().extensions

    @property
    def early_data(self) -> bool:
        """Whether the client sends early data after this message (TLS 1.3)."""
        return _EARLY_DATA in self._split().extensions

    @property
    def ech(self) -> bool:
        """Whether it carries an encrypted ClientHello, or the random bytes that browsers send in its place."""
        data = self.extension(_ENCRYPTED_CLIENT_HELLO)
        return data is not None and data[:1] == b"\0"

    @property
    def grease(self) -> bool:
        """Whether the cipher suites, extensions, groups or versions contain GREASE (RFC 8701)."""
        return not (
            GREASE.isdisjoint(self.cipher_suites)
            and GREASE.isdisjoint(self._split().extensions)
            and GREASE.isdisjoint(self.supported_groups)
            and GREASE.isdisjoint(self.supported_versions)
        )

    @property
    def ja3_text(self) -> str:
        """The input of the JA3 hash."""
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
