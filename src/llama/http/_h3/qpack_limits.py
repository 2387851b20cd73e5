"""HTTP/3 with limits on field sections: one byte of QPACK can refer to a field as large as the dynamic table."""

from __future__ import annotations

import time

from qh3._hazmat import QpackDecoder
from qh3.h3.connection import FieldSectionTooLarge, H3Connection
from qh3.quic.connection import QuicConnection

from llama.http._h2.wire.fields import PSEUDO_FIELDS
from llama.http._h2.wire.hpack_table import TABLE_SIZE
from llama.http._h3.fields import Fields, section_size
from llama.http._limits import DEFAULT_H2_LIMITS, Limits, TokenBucket

BLOCKED = 16  # streams whose field sections may wait for the dynamic table
DECODED = (
    2  # a field section up to this many times the largest allowed head is decoded, to be answered with 431
)
EXCESS, WEIGHT = (
    8,
    4,
)  # as over HTTP/2: a section ends the connection, or counts, by how many fields are too many


class H3(H3Connection):
    """The library's connection, limited to field sections of twice the size that `limits` allow for a head.

    A larger section ends the connection with H3_EXCESSIVE_LOAD, as do too many sections that exceed `limits`.
    """

    def __init__(self, quic: QuicConnection, limits: Limits) -> None:
        self._limits = limits
        bounds = DEFAULT_H2_LIMITS
        self._oversized = TokenBucket(bounds.oversized, bounds.oversized_per_second, time.monotonic)
        super().__init__(quic)

    def _init_connection(self) -> None:
        """Replace the library's fixed limits before they are sent in SETTINGS."""
        self._max_table_capacity = TABLE_SIZE
        self._blocked_streams = BLOCKED
        self._max_field_section_size = DECODED * self._limits.max_head
        self._max_encoded_field_section_size = 4 * self._max_field_section_size + 32
        self._decoder = QpackDecoder(TABLE_SIZE, BLOCKED, max_field_section_size=self._max_field_section_size)
        super()._init_connection()

    def _decode_headers(
        self, stream_id: int, frame_data: bytes | None, *, offset: int = 0, length: int | None = None
    ) -> Fields:
        """Count each section that exceeds a limit before the library reads its fields one by one."""
        fields = super()._decode_headers(stream_id, frame_data, offset=offset, length=length)
        limits = self._limits
        excess = max(0, len(fields) - limits.max_headers - PSEUDO_FIELDS)
        if excess > EXCESS * limits.max_headers:
            raise FieldSectionTooLarge(f"more than {EXCESS} times {limits.max_headers} fields")
        if excess or section_size(fields) > limits.max_head:
            count = max(1, min(excess * WEIGHT // limits.max_headers, DEFAULT_H2_LIMITS.oversized // 10))
            if not self._oversized.try_take(count):
                raise FieldSectionTooLarge(
                    f"too many field sections larger than {limits.max_head} bytes or {limits.max_headers} fields"
                )
        return fields
