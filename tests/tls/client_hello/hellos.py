"""Builds ClientHellos, whole and broken, and cuts them into records."""

from collections.abc import Iterable, Sequence


def vector(width: int, data: bytes) -> bytes:
    """Bytes behind their length."""
    return len(data).to_bytes(width, "big") + data


def u16s(values: Iterable[int]) -> bytes:
    """Two bytes for each number."""
    return b"".join(value.to_bytes(2, "big") for value in values)


def sni(*names: bytes) -> tuple[int, bytes]:
    """A server_name extension."""
    return 0, vector(2, b"".join(b"\0" + vector(2, name) for name in names))


def groups(*values: int) -> tuple[int, bytes]:
    """A supported_groups extension."""
    return 10, vector(2, u16s(values))


def point_formats(*values: int) -> tuple[int, bytes]:
    """An ec_point_formats extension."""
    return 11, vector(1, bytes(values))


def algorithms(*values: int) -> tuple[int, bytes]:
    """A signature_algorithms extension."""
    return 13, vector(2, u16s(values))


def alpn(*names: bytes) -> tuple[int, bytes]:
    """An ALPN extension."""
    return 16, vector(2, b"".join(vector(1, name) for name in names))


def versions(*values: int) -> tuple[int, bytes]:
    """A supported_versions extension."""
    return 43, vector(1, u16s(values))


def key_share(*values: int) -> tuple[int, bytes]:
    """A key_share extension with a key of 32 bytes for each group."""
    return 51, vector(2, b"".join(u16s([value]) + vector(2, bytes(32)) for value in values))


def client_hello(
    *extensions: tuple[int, bytes],
    version: int = 0x0303,
    session_id: bytes = b"",
    ciphers: Sequence[int] = (0x1301, 0x1302),
    methods: bytes = b"\0",
    block: bytes | None = None,
) -> bytes:
    """The handshake message; `block` stands for everything after the compression methods."""
    if block is None:
        parts = [u16s([kind]) + vector(2, data) for kind, data in extensions]
        block = vector(2, b"".join(parts)) if parts else b""
    body = (
        u16s([version])
        + bytes(range(32))
        + vector(1, session_id)
        + vector(2, u16s(ciphers))
        + vector(1, methods)
    )
    return message(1, body + block)


def largest_hello(*extensions: tuple[int, bytes]) -> bytes:
    """A ClientHello with every field as long as its length can say; padding fills the extensions."""
    ciphers = [0xC02B, 0xC02F, *[0x1301] * 32_765]
    used = sum(4 + len(data) for _, data in extensions)
    padding = (21, bytes(65_535 - 4 - used))
    return client_hello(*extensions, padding, session_id=bytes(32), ciphers=ciphers, methods=bytes(255))


def message(kind: int, body: bytes) -> bytes:
    """A handshake message."""
    return bytes([kind]) + vector(3, body)


def record(data: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    """One TLS record."""
    return bytes([kind]) + u16s([version]) + vector(2, data)


def records(data: bytes, size: int) -> bytes:
    """The same bytes in as many records as it takes."""
    return b"".join(record(data[at : at + size]) for at in range(0, len(data), size))
