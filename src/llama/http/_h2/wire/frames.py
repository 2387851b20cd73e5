"""HTTP/2 frames: types, flags, error codes and serialization (RFC 9113 sections 4, 6 and 7)."""

from __future__ import annotations

import struct

from llama._core.errors import ProtocolError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
PRIORITY_UPDATE = 0x10
NAMES = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
    "CONTINUATION",
)  # fmt: skip

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
SETTINGS_TIMEOUT = 0x4
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB
CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6
ENABLE_CONNECT_PROTOCOL = 0x8
NO_RFC7540_PRIORITIES = 0x9

FRAME_SIZE = 16384
"""The default largest payload of a frame."""
WINDOW = 65535
"""The default flow-control window."""
MAX_WINDOW = (1 << 31) - 1
"""The largest window, and the highest stream id."""

_header = struct.Struct(">HBBBL")
unpack_header = _header.unpack_from
"""Unpack a frame's length (upper 16 bits, lower 8), type, flags and stream at an offset."""
_pack = _header.pack
_numbered = struct.Struct(">HBBBLL").pack
_setting = struct.Struct(">HL")


class H2Error(ProtocolError):
    """A connection error: the peer violated the protocol, and the connection ends with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code_name(code)})")
        self.code = code


def code_name(code: int) -> str:
    """Return the name of an error code."""
    return CODES[code] if code < len(CODES) else f"code {code}"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return _pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the nine bytes before a payload."""
    return _pack(length >> 8, length & 0xFF, kind, flags, stream)


def window_update(stream: int, credit: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return _numbered(0, 4, WINDOW_UPDATE, 0, stream, credit)


def rst_stream(stream: int, code: int) -> bytes:
    """Return an RST_STREAM frame."""
    return _numbered(0, 4, RST_STREAM, 0, stream, code)


def goaway(last: int, code: int, text: bytes = b"") -> bytes:
    """Return a GOAWAY frame with debug data."""
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last, code) + text)


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([_setting.pack(key, value) for key, value in values.items()]))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the identifiers and values of a SETTINGS payload, in order."""
    return list(_setting.iter_unpack(payload))


def header_frames(stream: int, block: bytes, most: int, *, end: bool) -> bytes:
    """Return HEADERS, followed by CONTINUATION frames if the block is longer than `most` bytes."""
    length = len(block)
    flags = END_STREAM if end else 0
    if length <= most:
        return _pack(length >> 8, length & 0xFF, HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[at : at + most] for at in range(0, length, most)]
    frames = [frame(HEADERS, flags, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(frames)
